"""Estimators of a shifted class prior: error, coverage, many classes, time, memory.

    python bench/shift.py [--runs 100] [--classes 8142] [--out results/shift.json]
    python bench/shift.py --docs docs/shift.md     # only writes the tables of the result file

Five parts. `gaussian`: ten Gaussian classes, a source of imbalance 10, a target with the reverse
prior or with the same shares dealt to other classes, overconfident and biased logits of the Bayes
classifier, and as many labelled source samples as target samples. `digits`: a logistic regression
on scikit-learn's digits with a long-tailed training set, on the eleven test sets of LADE's
protocol. `many`: 8,142 classes with one and a half samples each. `matrix`: what a 24,426 x 8,142
matrix costs. `speed`: an estimate of 1,000 classes with its interval, and of a million samples with
200 draws for the test, each from as many labelled source as target samples. Seconds are of one
processor core of the machine in `environment`.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail.files import write_json
from longtail.prior import ClassPrior
from longtail.shift import adjust, estimate_prior, protocol_table
from longtail.shift.protocol import set_name
from longtail.training.run import environment
from memory import resident
from pages import write_between

METHODS = ("em", "bbse", "bbse_soft", "rlls")
# The test is the same for all methods with a source.
ALARMED = ("em", "em, no source")
SIZES = (100, 300, 1000, 3000)
TARGETS = ("reverse", "dealt")
# Which class's share of the source each class has in the target `dealt`.
DEALT = (4, 7, 0, 9, 2, 8, 1, 6, 3, 5)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=80)
    options.add_argument("--classes", type=int, default=8142)
    options.add_argument("--out", type=Path, default=Path("results/shift.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        for name, lines in tables_of(result).items():
            write_between(given.docs, f"bench/shift.py {name}", lines)
        return
    # One thread, since two that wait for each other on a shared machine are slower than one.
    torch.set_num_threads(1)
    result = {
        "command": f"python bench/shift.py --runs {given.runs} --classes {given.classes}",
        # Without the command line, which names folders.
        "environment": {k: v for k, v in environment().items() if k != "command"},
        "runs": given.runs,
        "gaussian": [
            row for target in TARGETS for n in SIZES for row in gaussian(n, given.runs, target)
        ],
        "digits": digits(),
        "speed": [speed(7_000, 1_000), speed(1_000_000, 10)],
        **large(given.classes),
    }
    write_json(given.out, result)
    print(f"written: {given.out}")


def tail(classes: int, imbalance: float) -> Tensor:
    p = imbalance ** -(torch.arange(classes).double() / (classes - 1))
    return p / p.sum()


def gaussian(size: int, runs: int, target: str) -> list[dict[str, object]]:
    """Error and coverage of every estimator at one sample size, and the level of the test."""
    classes = 10
    means = 1.5 * torch.randn(classes, 6, generator=torch.Generator().manual_seed(1)).double()
    bias = 0.3 * torch.randn(classes, generator=torch.Generator().manual_seed(2)).double()
    p = tail(classes, 10.0)
    q = p.flip(0) if target == "reverse" else p[torch.tensor(DEALT)]

    def draw(prior: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(prior, size, replacement=True, generator=generator)
        x = means[labels] + torch.randn(size, 6, generator=generator).double()
        return 1.5 * (-0.5 * torch.cdist(x, means) ** 2 + p.log()) + bias, labels

    sums = {name: torch.zeros(5) for name in (*METHODS, "em, no source")}
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        (source, labels), (drawn, _), (same, _) = (draw(prior, generator) for prior in (p, q, p))
        for name, total in sums.items():
            with_source = name in METHODS
            given = (source, labels) if with_source else (None, None)
            method = name if with_source else "em"
            began = time.process_time()
            found = estimate_prior(*given, drawn, p, method)  # type: ignore[arg-type]
            seconds = time.process_time() - began
            held = ((found.interval[:, 0] <= q) & (q <= found.interval[:, 1])).double().mean()
            still = found
            if name in ALARMED and target == "reverse":
                still = estimate_prior(*given, same, p, method, interval=False)  # type: ignore[arg-type]
            error = (found.estimated - q).abs().sum()
            total += torch.tensor([error, held, found.shifted, still.shifted, seconds])
    print(f"gaussian {target} {size}", flush=True)
    keys = ("error_l1", "coverage_percent", "shift_found_percent")
    rows: list[dict[str, object]] = []
    for name, total in sums.items():
        figures = [float(value) / runs for value in total]
        units = (1, 100, 100)
        row = {key: round(unit * x, 4) for key, unit, x in zip(keys, units, figures, strict=False)}
        if name in ALARMED and target == "reverse":
            row["false_alarm_percent"] = round(100 * figures[3], 1)
        about = {"target": target, "method": name, "samples": size}
        rows.append({**about, **row, "seconds": round(figures[4], 4)})
    return rows


def accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {"accuracy": 100 * float((logits.argmax(dim=1) == labels).double().mean())}


def table(logits: Tensor, labels: Tensor, train: ClassPrior) -> list[dict[str, object]]:
    return [
        {
            "direction": column.direction,
            "ratio": column.ratio,
            "samples": column.samples,
            "shift_found": column.shifted,
            **{name: round(figures["accuracy"], 2) for name, figures in column.scores.items()},
        }
        for column in protocol_table(logits, labels, train, train, accuracy)
    ]


def digits(imbalance: float = 30.0, seeds: int = 5) -> dict[str, object]:
    """Mean accuracy over seeds of a logistic regression on LADE's eleven test sets."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, truth = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16 - 0.5), torch.tensor(truth)
    tables = []
    for seed in range(seeds):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        kept, test = [], []
        for c in range(10):
            mine = order[y[order] == c]
            test.append(mine[:85])
            kept.append(mine[85 : 85 + int(85 * imbalance ** (-c / 9))])
        train, held = torch.cat(kept), torch.cat(test)
        model = LogisticRegression(C=1.0, max_iter=2000).fit(x[train], y[train])
        logits = torch.tensor(model.decision_function(x[held]))
        counts = ClassPrior(torch.bincount(y[train], minlength=10))
        tables.append(table(logits, y[held], counts))
    names = ("raw", "known", "estimated")
    rows = []
    for column in zip(*tables, strict=True):
        means = {n: round(sum(float(cell[n]) for cell in column) / seeds, 2) for n in names}  # type: ignore[arg-type]
        rows.append({k: column[0][k] for k in ("direction", "ratio", "samples")} | means)
    print("digits", flush=True)
    return {"imbalance": imbalance, "seeds": seeds, "columns": rows}


def timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.process_time()
    done = work()
    return round(time.process_time() - began, 2), done


def speed(samples: int, classes: int) -> dict[str, object]:
    """Processor seconds of an estimate with its interval, test and calibration."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, 32, generator=generator)
    p = tail(classes, 100.0)

    def draw(prior: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(prior.float(), samples, replacement=True, generator=generator)
        x = means[labels] + 1.5 * torch.randn(samples, 32, generator=generator)
        return x @ means.T / 2 + p.log().float(), labels

    (source, labels), (target, _) = draw(p), draw(p.flip(0))
    seconds, found = timed(partial(estimate_prior, source, labels, target, p))
    error = float((found.estimated - p.flip(0)).abs().sum())  # type: ignore[attr-defined]
    about = {"samples": samples, "classes": classes, "seconds": seconds}
    print(about, flush=True)
    return {**about, "error_l1": round(error, 3)}


def large(classes: int) -> dict[str, object]:
    """Many classes with few samples, then time and memory of the whole matrix."""
    generator = torch.Generator().manual_seed(0)
    train = ClassPrior([max(2, int(1000 * 500 ** (-c / (classes - 1)))) for c in range(classes)])
    p = train.probabilities
    samples, wide = 3 * classes, 64
    means = torch.nn.functional.normalize(torch.randn(classes, wide, generator=generator))
    # In file order the classes are mixed, three of each.
    labels = torch.arange(classes).repeat(3)[torch.randperm(samples, generator=generator)]
    spread = 0.25
    x = means[labels] + spread * torch.randn(samples, wide, generator=generator)
    logits = (x @ means.T).div_(spread**2).add_(train.log_prior.float())
    before, gib = resident("VmHWM") / 2**10, logits.numel() * 4 / 2**30
    seconds: dict[str, float] = {}
    seconds["adjust_in_place"], _ = timed(partial(adjust, logits, p, p.flip(0), out=logits))
    adjust(logits, p.flip(0), p, out=logits)
    seconds["protocol_table"], columns = timed(partial(table, logits, labels, train))
    matrix = {
        "samples": samples,
        "classes": classes,
        "matrix_gib": round(gib, 2),
        # The random matrix itself was made before.
        "peak_over_matrix": round((resident("VmHWM") / 2**10 - before + gib) / gib, 2),
        "seconds": seconds,
        "columns": columns,
    }
    print("matrix", flush=True)
    half = samples // 2
    # The labelled half is drawn with the training prior, like a user's validation split.
    drawn = torch.multinomial(p.float(), half, replacement=True, generator=generator)
    x = means[drawn] + spread * torch.randn(half, wide, generator=generator)
    source = (x @ means.T).div_(spread**2).add_(train.log_prior.float())
    target, truth = logits[:half].clone(), labels[:half]
    del logits
    q = torch.full_like(p, 1 / classes)
    rows = []
    for method in ("em", "rlls"):  # of so many classes BBSE's answer is that of RLLS
        took, found = timed(
            partial(estimate_prior, source, drawn, target, p, method, resamples=100)
        )
        fitted = {
            name: accuracy(target + (prior.log() - p.log()).float(), truth)["accuracy"]
            for name, prior in (
                ("raw", p),
                ("known", q),
                ("estimated", found.estimated),  # type: ignore[attr-defined]
            )
        }
        low, high = found.interval.T  # type: ignore[attr-defined]
        rows.append(
            {
                "method": method,
                "samples": half,
                "classes": classes,
                "seconds": took,
                "error_l1": round(float((found.estimated - q).abs().sum()), 3),  # type: ignore[attr-defined]
                "error_l1_of_source_prior": round(float((p - q).abs().sum()), 3),
                "coverage_percent": round(
                    100 * float(((low <= q) & (q <= high)).double().mean()), 1
                ),
                **{name: round(value, 2) for name, value in fitted.items()},
            }
        )
        print(rows[-1], flush=True)
    return {"matrix": matrix, "many": rows}


def tables_of(result: dict[str, object]) -> dict[str, list[str]]:
    rows: list[dict[str, float]] = result["gaussian"]  # type: ignore[assignment]
    by = {(row["target"], row["method"], row["samples"]): row for row in rows}
    names = list(dict.fromkeys(row["method"] for row in rows))
    sizes = list(dict.fromkeys(row["samples"] for row in rows))
    gaussian_lines = ["| target | samples | " + " | ".join(map(str, names)) + " |"]
    gaussian_lines.append("|---|---|" + "---|" * len(names))
    for target in TARGETS:
        for size in sizes:
            cells = [
                f"{by[target, name, size]['error_l1']:.3f} / "  # type: ignore[index]
                f"{by[target, name, size]['coverage_percent']:.0f}"  # type: ignore[index]
                for name in names
            ]
            gaussian_lines.append(f"| {target} | {size} | " + " | ".join(cells) + " |")
    alarm_lines = ["| samples | " + " | ".join(map(str, sizes)) + " |"]
    alarm_lines.append("|---|" + "---|" * len(sizes))
    for name in ALARMED:
        alarms = [by["reverse", name, size]["false_alarm_percent"] for size in sizes]  # type: ignore[index]
        alarm_lines.append(f"| {name} | " + " | ".join(f"{x:.1f}" for x in alarms) + " |")
    matrix: dict[str, object] = result["matrix"]  # type: ignore[assignment]
    many: list[dict[str, float]] = result["many"]  # type: ignore[assignment]
    many_lines = [
        "| method | seconds | L1 error | coverage, % | accuracy raw | known | estimated |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in many:
        cells = [row[k] for k in ("seconds", "error_l1", "coverage_percent")]
        cells += [row[k] for k in ("raw", "known", "estimated")]
        many_lines.append(
            f"| {row['method']} | " + " | ".join(f"{cell:g}" for cell in cells) + " |"
        )
    seconds: dict[str, float] = matrix["seconds"]  # type: ignore[assignment]
    matrix_lines = [
        f"{matrix['samples']} x {matrix['classes']}, {matrix['matrix_gib']} GiB: `adjust` in place "
        f"{seconds['adjust_in_place']} s; the eleven columns {seconds['protocol_table']} s; peak "
        f"{matrix['peak_over_matrix']} times the matrix, itself included.",
    ]
    speed_lines = ["| samples | classes | seconds | L1 error |", "|---|---|---|---|"]
    speed_lines += [
        "| " + " | ".join(f"{value:,}" for value in row.values()) + " |"
        for row in result["speed"]  # type: ignore[attr-defined]
    ]
    digits_part: dict[str, list[dict[str, Any]]] = result["digits"]  # type: ignore[assignment]
    return {
        "gaussian": gaussian_lines,
        "alarms": alarm_lines,
        "digits": column_lines(digits_part["columns"]),
        "many": many_lines,
        "matrix": matrix_lines,
        "speed": speed_lines,
    }


def column_lines(columns: list[dict[str, Any]]) -> list[str]:
    heads = [set_name(c["direction"], c["ratio"]) for c in columns]
    body = [
        f"| {name} | " + " | ".join(f"{c[name]:.1f}" for c in columns) + " |"
        for name in ("raw", "known", "estimated")
    ]
    return ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads), *body]


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
