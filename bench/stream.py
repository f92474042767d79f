"""Ten million rows through `LongTailClassifier.partial_fit` and `PriorTracker`: memory and speed.

    python bench/stream.py [--rows 10000000] [--out results/stream.json] [--page docs/shift.md]

Rows of 128 float32 features are generated chunk by chunk: Gaussian classes, long-tailed, which are
reversed half way. Every chunk is first predicted, as in a running service, and its logits go to the
tracker; then its labels arrive and `partial_fit` learns from it. Memory is the resident set of the
process after each twentieth of the rows; seconds are on one processor core, without the generation
of rows.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtail.files import write_json
from longtail.shift import PriorTracker
from longtail.sklearn import LongTailClassifier
from longtail.training.run import environment
from memory import resident
from pages import write_between

CLASSES, WIDTH, CHUNK, SPLITS, HALF_LIFE = 20, 128, 25_000, 20, 100_000.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--out", type=Path, default=Path("results/stream.json"))
    options.add_argument("--page", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": f"python bench/stream.py --rows {given.rows}",
        "environment": environment(),
        "classes": CLASSES,
        "features": WIDTH,
        "chunk": CHUNK,
        "half_life": HALF_LIFE,
        **stream(given.rows),
    }
    write_json(given.out, result)
    if given.page:
        write_between(given.page, "bench/stream.py", lines(result))


def stream(rows: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, WIDTH, generator=generator) * 0.25
    tail = 100 ** -(torch.arange(CLASSES) / (CLASSES - 1))
    priors = [p / p.sum() for p in (tail, tail.flip(0))]
    model = LongTailClassifier(method="logit_adjust", C=5.0, random_state=0)
    uniform = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    tracker = PriorTracker(expressed=uniform, half_life=HALF_LIFE)
    curve: list[dict[str, float]] = []
    seconds = {"predict": 0.0, "tracker": 0.0, "partial_fit": 0.0}
    right = {"raw": 0, "tracked": 0}
    since, start = 0, resident()
    chunks = rows // CHUNK
    for number in range(chunks):
        prior = priors[2 * number // chunks]
        labels = torch.multinomial(prior, CHUNK, replacement=True, generator=generator)
        x = means[labels] + torch.randn(CHUNK, WIDTH, generator=generator)
        if number:
            began = time.process_time()
            logits = torch.from_numpy(model.decision_function(x))
            seconds["predict"] += time.process_time() - began
            began = time.process_time()
            tracker.update(logits)
            seconds["tracker"] += time.process_time() - began
            since += CHUNK
            right["raw"] += count_right(logits, labels)
            right["tracked"] += count_right(logits + tracker.prior.log(), labels)
        began = time.process_time()
        model.partial_fit(x, labels.numpy(), classes=np.arange(CLASSES))
        seconds["partial_fit"] += time.process_time() - began
        if (number + 1) % max(1, chunks // SPLITS) == 0:
            curve.append(
                {
                    "rows": (number + 1) * CHUNK,
                    "resident_mib": round(resident(), 1),
                    "tracked_error_l1": round(float((tracker.prior - prior).abs().sum()), 4),
                    **{f"{name}_percent": round(100 * n / since, 2) for name, n in right.items()},
                }
            )
            print(curve[-1], flush=True)
            right, since = dict.fromkeys(right, 0), 0
    return {
        "rows": chunks * CHUNK,
        "rows_gib": round(chunks * CHUNK * WIDTH * 4 / 2**30, 2),
        "resident_before_mib": round(start, 1),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "curve": curve,
    }


def count_right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(dim=1) == labels).sum())


def lines(result: dict[str, object]) -> list[str]:
    """Every second entry of the curve, and the seconds."""
    curve: list[dict[str, float]] = result["curve"]  # type: ignore[assignment]
    shown = curve[1::2]
    rows = {
        "million rows": [f"{row['rows'] / 1e6:g}" for row in shown],
        "resident, MiB": [f"{row['resident_mib']:.0f}" for row in shown],
        "accuracy as it is, %": [f"{row['raw_percent']:.1f}" for row in shown],
        "under the tracked prior, %": [f"{row['tracked_percent']:.1f}" for row in shown],
        "L1 error of the tracked prior": [f"{row['tracked_error_l1']:.3f}" for row in shown],
    }
    (head, first), *rest = rows.items()
    seconds: dict[str, float] = result["seconds"]  # type: ignore[assignment]
    took = ", ".join(f"`{name}` {value:g} s" for name, value in seconds.items())
    return [
        f"| {head} | " + " | ".join(first) + " |",
        "|---|" + "---|" * len(first),
        *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rest),
        "",
        f"The rows together are {result['rows_gib']} GiB. Seconds of one core: {took}.",
    ]


if __name__ == "__main__":
    main()
