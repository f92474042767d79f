"""LADE's and Dirichlet-shifted test sets on trained runs: raw, known and estimated prior.

    python bench/protocol.py RUN [RUN ...] [--out results/protocol.json] [--page docs/shift.md]
    python bench/protocol.py --page docs/shift.md    # only writes the tables of the result file

Runs of one data set and method are averaged. Nothing is trained and no image is read: everything
comes from the runs' `predictions.parquet`. The estimate never sees a label of a sample that it is
applied to: on the eleven sets the test set is cross-fitted (see `longtail.shift.protocol_table`);
for Dirichlet priors one half of the test set is the labelled source, and the unlabelled target is
drawn from the other.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.files import write_json
from longtail.metrics import classification_metrics
from longtail.shift import (
    adjust,
    dirichlet_test_set,
    estimate_prior,
    protocol_table,
    resolve_prior,
)
from longtail.shift.protocol import COLUMNS, halves, prior_of, set_name
from longtail.training.run import Run, environment
from pages import write_between

PRIORS = ("raw", "known", "estimated")
FIGURES = {"accuracy": 100, "ece": 100, "brier": 1, "nll": 1}
ALPHAS, DRAWS = (0.3, 1.0, 3.0), 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="*", type=Path)
    options.add_argument("--out", type=Path, default=Path("results/protocol.json"))
    options.add_argument("--page", type=Path)
    given = options.parse_args()
    if given.runs:
        torch.set_num_threads(1)
        measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for folder in given.runs:
            run = Run(folder)
            method = run.config["method"]["name"]
            one = measure(run)
            measured.setdefault((one.pop("data"), method), []).append(one)
            print(f"{folder}: done", flush=True)
        groups = [
            {"data": data, "method": method, "runs": len(ones), **mean(ones)}
            for (data, method), ones in measured.items()
        ]
        result = {
            "command": "python bench/protocol.py RUN ...",
            "environment": environment(),
            "units": "accuracy and ECE in percent, NLL in nats; means over runs",
            "groups": [{**group, **summary(group)} for group in groups],
        }
        write_json(given.out, result)
    if given.page:
        groups = json.loads(given.out.read_text(encoding="utf-8"))["groups"]
        lines = [line for group in groups for line in table(group)]
        write_between(given.page, "bench/protocol.py", lines[:-1])
        write_between(given.page, "bench/protocol.py summary", summary_table(groups))


def score(logits: Tensor, labels: Tensor, prior: ClassPrior) -> Mapping[str, float]:
    figures = classification_metrics(logits, labels, prior)
    return {name: unit * figures[name] for name, unit in FIGURES.items()}


def measure(run: Run) -> dict[str, Any]:
    """The eleven columns, the set without a shift, and the Dirichlet priors, of one run."""
    predictions = run.predictions()
    prior, logits, labels = predictions.prior, predictions.logits, predictions.labels
    expressed = resolve_prior(predictions.expressed, prior, prior.num_classes)
    scored = partial(score, prior=prior)
    # Without a shift: the prior that the model expresses, as a test set.
    same = max(1.0, float(expressed.max() / expressed.min()))
    columns = [*COLUMNS, ("forward", round(same, 6))]
    columns = protocol_table(logits, labels, prior, expressed, scored, columns=columns)
    rows = [
        {
            "direction": column.direction,
            "ratio": column.ratio,
            "samples": column.samples,
            "error_l1": float((column.estimated - column.prior).abs().sum()),
            "expressed_l1": float((expressed - column.prior).abs().sum()),
            **{name: dict(column.scores[name]) for name in PRIORS},
        }
        for column in columns
    ]
    half, other = (torch.from_numpy(rows) for rows in halves(labels))
    dirichlet = []
    for alpha in ALPHAS:
        for seed in range(DRAWS):
            drawn = dirichlet_test_set(labels[other], alpha, len(other) // 2, seed)
            rows_drawn = other[torch.from_numpy(drawn)]
            target, truth = logits[rows_drawn], labels[rows_drawn]
            found = estimate_prior(
                logits[half], labels[half], target, expressed, training_prior=prior, interval=False
            )
            # A class that is not drawn is not ruled out: the prior is known, not the labels.
            known = prior_of(truth, prior.num_classes) + 1e-9
            adjusted = {
                "raw": target,
                "known": adjust(target, expressed, known / known.sum()),
                "estimated": adjust(target, expressed, found.prior),
            }
            dirichlet.append(
                {
                    "alpha": alpha,
                    "seed": seed,
                    "error_l1": float((found.prior - known).abs().sum()),
                    "expressed_l1": float((expressed - known).abs().sum()),
                    **{name: scored(values, truth) for name, values in adjusted.items()},
                }
            )
    return {
        "data": predictions.name,
        "expressed": predictions.expressed,
        "test_samples": len(labels),
        "columns": rows[:-1],
        "no_shift": rows[-1],
        "dirichlet": dirichlet,
    }


def mean(ones: list[Any]) -> Any:
    """The mean of equal structures, entry by entry."""
    first = ones[0]
    if isinstance(first, Mapping):
        return {name: mean([one[name] for one in ones]) for name in first}
    if isinstance(first, list):
        return [mean(list(entries)) for entries in zip(*ones, strict=True)]
    if isinstance(first, float):
        return round(statistics.fmean(ones), 4)
    return first


def summary(group: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy gained with the known prior, and how much of it the estimated one recovers."""
    far = [row for row in group["columns"] if row["ratio"] >= 10]
    parts = {f"{way} 10 to 50": [r for r in far if r["direction"] == way] for way in WAYS}
    parts |= {
        f"Dirichlet {alpha:g}": [row for row in group["dirichlet"] if row["alpha"] == alpha]
        for alpha in ALPHAS
    }
    parts["no shift"] = [group["no_shift"]]
    lines = {}
    for name, rows in parts.items():
        raw, known, estimated = (
            statistics.fmean(row[prior]["accuracy"] for row in rows) for prior in PRIORS
        )
        gain = known - raw
        lines[name] = {
            "known_gains_points": round(gain, 2),
            "estimated_gains_points": round(estimated - raw, 2),
            # With less than a point there is nothing to recover.
            "recovered_percent": round(100 * (estimated - raw) / gain, 1) if gain >= 1 else None,
        }
    return {"summary": lines}


WAYS = ("forward", "backward")


def summary_table(groups: list[dict[str, Any]]) -> list[str]:
    """Points of accuracy gained with the known and the estimated prior, for each kind of shift."""
    kinds = list(groups[0]["summary"])
    lines = [
        "| known / estimated gain | " + " | ".join(kinds) + " |",
        "|---|" + "---|" * len(kinds),
    ]
    for group in groups:
        cells = [
            f"{row['known_gains_points']:+.1f} / {row['estimated_gains_points']:+.1f}"
            for row in group["summary"].values()
        ]
        lines.append(f"| {group['data']}, {group['method']} | " + " | ".join(cells) + " |")
    return lines


def table(group: Mapping[str, Any]) -> list[str]:
    """The eleven columns of one group."""
    heads = [set_name(row["direction"], row["ratio"]) for row in group["columns"]]
    seeds = f"mean of {group['runs']} runs" if group["runs"] > 1 else "one run"
    lines = [
        f"**{group['data']}, {group['method']}** ({seeds}):",
        "",
        "| | prior | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    digits = {"accuracy": 1, "ece": 1, "brier": 3, "nll": 3}
    titles = {"accuracy": "accuracy, %", "ece": "ECE, %", "brier": "Brier", "nll": "NLL"}
    for figure, places in digits.items():
        for prior in PRIORS:
            cells = [f"{row[prior][figure]:.{places}f}" for row in group["columns"]]
            title = titles[figure] if prior == "raw" else ""
            lines.append(f"| {title} | {prior} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
