"""Time and memory of the losses, compared with their limit and with the common dense form.

    python bench/losses.py [--rounds 15] [--threads 2] [--clock wall] [--out FILE] [--docs FILE]

Forward and backward of each loss, in float32, of

* the loss,
* its limit: the one matrix product that it cannot avoid, forward and backward (for a loss of
  logits alone, torch's cross-entropy of the same logits),
* the dense form, if there is a common one: one-hot products over keys times classes for GML,
  weights filled in by a Python loop over the targets for BCL; written here from the formulas.

Each round times them in turn; times are medians over the rounds, and ratios are medians of those
within the same round. Memory is the most that is allocated at one time beyond inputs and what is
left at the end (loss and gradients), from torch's own record of every allocation. Agreement is the
largest difference from the authors' code on the golden vectors in tests/losses/golden, relative to
the largest value, over loss and gradients. The table in the docs is rewritten from the results.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from longtail import ClassPrior, losses
from longtail.files import write_json
from longtail.memory import ClassQueue
from longtail.training.run import environment
from pages import write_between

ROOT = Path(__file__).parent.parent
GML_SHAPES = ((128, 4096, 100, 32), (128, 16384, 1000, 1024), (128, 32768, 8142, 1024))
BCL_SHAPES = ((256, 100, 128), (256, 1000, 1024), (256, 8142, 1024))
GOLDEN_NAMES = {
    "GML": "gml",
    "BCL": "bcl",
    "PaCo": "paco",
    "LADE (with LADER)": "lade",
    "logit-adjusted": "logit_adjust",
}
# On a shared machine, only the process's own time on one thread can be measured.
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


@dataclass
class Case:
    """A loss at one shape; each function does forward and backward."""

    loss: str
    shape: dict[str, int]
    matrix: int  # floats in the matrix that the limit computes
    limit: Callable[[], None]
    ours: Callable[[], None]
    dense: Callable[[], None] | None = None


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    options.add_argument("--out", type=Path, default=ROOT / "results/losses.json")
    options.add_argument("--docs", type=Path, default=ROOT / "docs/losses.md")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    clock = CLOCKS[given.clock]
    # A training process has already allocated and freed megabytes, after which the C library keeps
    # blocks; a fresh process returns every block and pays for its pages again.
    torch.zeros(30 << 20, dtype=torch.uint8)
    makers = [
        *(lambda shape=shape: gml_case(*shape) for shape in GML_SHAPES),
        *(lambda shape=shape: bcl_case(*shape) for shape in BCL_SHAPES),
        *(lambda make=make: make() for make in (supcon_case, paco_case, proco_case)),
        *(lambda name=name: logits_case(name) for name in LOGITS_LOSSES),
    ]
    result = {
        "environment": environment(),
        "seed": 0,
        "rounds": given.rounds,
        "clock": given.clock,
        "agreement": agreement(),
        "cases": [measure(make(), given.rounds, clock) for make in makers],
    }
    write_json(given.out, result)
    if given.docs.exists():
        write_table(given.docs, result)
    print(f"written: {given.out}")


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> dict[str, object]:
    """Times, ratios and memory of one case."""
    ways = {"limit": case.limit, "ours": case.ours}
    if case.dense is not None:
        ways["dense"] = case.dense
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(rounds + 2):
        for name, way in ways.items():
            gc.collect()
            start = clock()
            way()
            if done >= 2:  # the first rounds warm up
                seconds[name].append(clock() - start)

    def ratio(above: str, below: str) -> float | None:
        if above not in seconds:
            return None
        pairs = zip(seconds[above], seconds[below], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    memory = {name: peak_floats(way) for name, way in ways.items()}
    row: dict[str, object] = {
        "loss": case.loss,
        "shape": case.shape,
        "milliseconds": {n: round(1e3 * statistics.median(s), 3) for n, s in seconds.items()},
        "over_limit": ratio("ours", "limit"),
        "dense_over_ours": ratio("dense", "ours"),
        "peak_over_matrix": {n: round(m / case.matrix, 2) for n, m in memory.items()},
    }
    print(json.dumps(row))
    return row


def peak_floats(way: Callable[[], None]) -> float:
    """Most float32 numbers allocated at one time beyond inputs and what is left at the end."""
    with torch.profiler.profile(profile_memory=True) as profile:
        way()
    assert profile.profiler is not None
    # profile.events() omits what it attributes to an operation; this is every allocation.
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    now = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        peak = max(peak, now)
    return (peak - max(now, 0)) / 4


def train(loss: Callable[[], Tensor], *leaves: Tensor) -> Callable[[], None]:
    """Forward and backward, with no gradient left from before."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return step


def product(left: Callable[[], Tensor], right: Callable[[], Tensor], *leaves: Tensor) -> Callable:
    """The matrix product alone, forward and backward."""
    gradient = torch.randn(len(left()), len(right()))

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        (left() @ right().T).backward(gradient)

    return step


def unit(*shape: int) -> Tensor:
    return normalize(torch.randn(shape), dim=-1).requires_grad_()


def long_tail(num_classes: int) -> ClassPrior:
    """Imbalance 100, as CIFAR-100-LT."""
    return ClassPrior((500 * 0.01 ** (torch.arange(num_classes) / (num_classes - 1))).long())


def gml_case(batch: int, keys: int, num_classes: int, width: int) -> Case:
    """GML with a full class-wise queue that holds the batch's own keys."""
    torch.manual_seed(0)
    prior = long_tail(num_classes)
    queue = ClassQueue(prior, size=keys, width=1, base=2)
    query, key = unit(batch, width), unit(keys, width)
    key_labels = torch.repeat_interleave(torch.arange(num_classes), queue.lengths)
    key_index = torch.randperm(keys)
    own = torch.randperm(keys)[:batch]
    target, query_index = key_labels[own], key_index[own]
    logits = torch.randn(batch, num_classes).mul_(0.1).requires_grad_()
    log_temperature = torch.tensor(0.1).log().requires_grad_()
    leaves = (query, key, logits, log_temperature)
    log_prior = prior.log_prior.float()

    def ours() -> Tensor:
        return losses.gml_loss(
            query,
            key,
            key_labels,
            logits,
            target,
            log_prior,
            log_temperature,
            query_index=query_index,
            key_index=key_index,
        )

    def dense() -> Tensor:
        member = one_hot(key_labels, num_classes).float()
        others = (query_index[:, None] != key_index).float()
        similarity = query @ key.T

        def loss(similarity: Tensor, temperature: Tensor, kept: Tensor | None) -> Tensor:
            scaled = similarity / temperature
            weight = torch.exp(scaled - scaled.amax(1, keepdim=True).detach())
            if kept is None:
                mean = (weight @ member) / member.sum(0)
            else:
                mean = ((weight * kept) @ member) / (kept @ member)
            return cross_entropy(mean.log() + log_prior, target)

        temperature = log_temperature.exp()
        contrast = loss(similarity, temperature.detach(), None)
        learned = loss(similarity.detach(), temperature, others)
        return cross_entropy(30 * logits + log_prior, target) + contrast + learned

    return Case(
        "GML",
        {"B": batch, "K": keys, "C": num_classes, "D": width},
        batch * keys,
        product(lambda: query, lambda: key, query, key),
        train(ours, *leaves),
        train(dense, *leaves),
    )


def bcl_case(batch: int, num_classes: int, width: int) -> Case:
    """The contrastive part of BCL, two views."""
    torch.manual_seed(0)
    prior = long_tail(num_classes)
    features, prototypes = unit(batch, 2, width), unit(num_classes, width)
    target = torch.multinomial(prior.probabilities, batch, replacement=True)

    def ours() -> Tensor:
        return losses.balanced_contrastive_loss(features, prototypes, target, temperature=0.1)

    def members() -> Tensor:
        return torch.cat([features.flatten(0, 1), prototypes])

    def dense() -> Tensor:
        anchor, rows = features.flatten(0, 1), 2 * batch
        labels = torch.cat([target.repeat_interleave(2), torch.arange(num_classes)])
        similarity = anchor @ members().T / 0.1
        similarity = similarity - similarity.amax(1, keepdim=True).detach()
        same = (labels[:rows, None] == labels).float()
        others = torch.ones_like(same).fill_diagonal_(0.0)
        counts = one_hot(labels, num_classes).sum(0)
        size = torch.tensor([float(counts[label]) for label in labels]).expand(rows, -1)
        positive = same * others
        total = (similarity.exp() * others / (size - positive)).sum(1, keepdim=True)
        return -((positive * (similarity - total.log())).sum(1) / positive.sum(1)).mean()

    return Case(
        "BCL",
        {"B": batch, "V": 2, "C": num_classes, "D": width},
        2 * batch * (2 * batch + num_classes),
        product(lambda: features.flatten(0, 1), members, features, prototypes),
        train(ours, features, prototypes),
        train(dense, features, prototypes),
    )


def supcon_case(batch: int = 256, width: int = 128) -> Case:
    """SupCon, two views."""
    torch.manual_seed(0)
    features, target = unit(batch, 2, width), torch.randint(100, (batch,))

    def flat() -> Tensor:
        return features.flatten(0, 1)

    return Case(
        "SupCon",
        {"B": batch, "V": 2, "D": width},
        (2 * batch) ** 2,
        product(flat, flat, features),
        train(
            lambda: losses.supervised_contrastive_loss(features, target, temperature=0.1), features
        ),
    )


def paco_case(
    batch: int = 128, queue: int = 1024, num_classes: int = 100, width: int = 128
) -> Case:
    """PaCo with its queue."""
    torch.manual_seed(0)
    features, logits = unit(2 * batch + queue, width), torch.randn(batch, num_classes)
    logits.requires_grad_()
    target = torch.randint(num_classes, (batch,))
    labels = torch.cat([target, target, torch.randint(num_classes, (queue,))])
    loss = losses.PaCoLoss(long_tail(num_classes))
    return Case(
        "PaCo",
        {"B": batch, "Q": queue, "C": num_classes, "D": width},
        batch * len(features),
        product(lambda: features[:batch], lambda: features, features),
        train(lambda: loss(features, labels, logits), features, logits),
    )


def proco_case(batch: int = 256, num_classes: int = 100, width: int = 128) -> Case:
    """ProCo; its Bessel functions are float64."""
    torch.manual_seed(0)
    features, target = unit(batch, width), torch.randint(num_classes, (batch,))
    loss = losses.ProCoLoss(long_tail(num_classes), width=width)
    loss.update(features.detach(), target)
    return Case(
        "ProCo",
        {"B": batch, "C": num_classes, "D": width},
        batch * num_classes,
        product(lambda: features, lambda: loss.mean, features),
        train(lambda: loss(features, target), features),
    )


LOGITS_LOSSES = {
    "logit-adjusted": losses.LogitAdjustedLoss,
    "re-weighted": losses.ReweightedLoss,
    "focal": losses.FocalLoss,
    "LDAM": losses.LDAMLoss,
    "DBM": losses.DBMLoss,
    "LADE (with LADER)": losses.LADELoss,
}


def logits_case(name: str, batch: int = 256, num_classes: int = 1000) -> Case:
    """A loss of logits alone."""
    torch.manual_seed(0)
    loss = LOGITS_LOSSES[name](long_tail(num_classes))
    logits = torch.randn(batch, num_classes, requires_grad=True)
    target = torch.randint(num_classes, (batch,))
    return Case(
        name,
        {"B": batch, "C": num_classes},
        batch * num_classes,
        train(lambda: cross_entropy(logits, target), logits),
        train(lambda: loss(logits, target), logits),
    )


def agreement() -> dict[str, dict[str, float]]:
    """Largest relative difference from the authors' code, over loss and gradients, by type."""
    golden = load_test(ROOT / "tests/losses/test_golden.py")
    worst: dict[str, dict[str, float]] = {}
    for path in golden.GOLDEN:
        name = path.stem.rsplit("_", 1)[0]
        for dtype in golden.TOLERANCE:
            case = golden.load(path, dtype)
            loss = golden.run(case, name)
            loss.backward()
            case["loss_of_ours"] = loss.detach()
            pairs = [(loss.detach(), case["loss"])]
            pairs += [
                (case[key].grad, case[f"grad_{key}"]) for key in case if f"grad_{key}" in case
            ]
            largest = max(
                ((got.double() - want).abs().max() / want.abs().max()).item() for got, want in pairs
            )
            by_type = worst.setdefault(name, {})
            kind = str(dtype).removeprefix("torch.")
            by_type[kind] = max(by_type.get(kind, 0.0), largest)
    return worst


def load_test(path: Path) -> ModuleType:
    """The test of the golden vectors, which knows how to call each loss."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_table(docs: Path, result: dict) -> None:
    """Writes the table of the results between the two markers of the page."""
    lines = [
        "| loss | shape | off the authors' code (float64, float32) | ms | over limit "
        "| dense form over ours | peak memory / matrix (ours, limit, dense) |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        shape = ", ".join(f"{name} {size}" for name, size in case["shape"].items())
        off = result["agreement"].get(GOLDEN_NAMES.get(case["loss"], ""))
        shown = f"{off['float64']:.0e}, {off['float32']:.0e}" if off else "no published vectors"
        dense = case["dense_over_ours"]
        peak = case["peak_over_matrix"]
        peaks = ", ".join(f"{peak[name]:.1f}" if name in peak else "-" for name in PEAKS)
        lines.append(
            f"| {case['loss']} | {shape} | {shown} | {case['milliseconds']['ours']:.2f} "
            f"| {case['over_limit']:.2f} | {f'{dense:.1f}' if dense else '-'} | {peaks} |"
        )
    about = result["environment"]
    lines += [
        "",
        f"Float32, CPU, {about['threads']} thread(s), {result['clock']} time, longtail "
        f"{about['packages']['longtail']}, torch {about['packages']['torch']}, medians of "
        f"{result['rounds']} rounds, seed {result['seed']}. "
        "`python bench/losses.py` writes `results/losses.json` and this table.",
    ]
    write_between(docs, "bench/losses.py", lines)


PEAKS = ("ours", "limit", "dense")


if __name__ == "__main__":
    main()
