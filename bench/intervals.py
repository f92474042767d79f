"""Coverage of the intervals of the report, and how often a run is called best by chance.

    python bench/intervals.py [--trials 200] [--out results/intervals.json]

A synthetic classifier has exact class probabilities, so that every accuracy behind a test set is
known. Test sets are drawn from it, and the bench counts how often the printed 95 % interval
contains the truth. Two runs are equal if their predictions are drawn from the same classifier,
independently or with most mistakes in common; the bench counts how often one of them is called the
best, by column and anywhere in the table. Power: the same for a run that is better by a known
number of points.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.files import write_json
from longtail.metrics import (
    SampleScores,
    accuracy_intervals,
    metrics_from_scores,
    score_samples,
    wilson_interval,
)
from longtail.report import RunData
from longtail.report.comparison import Comparison
from longtail.report.tables import KEY_COLUMNS, MORE_COLUMNS
from longtail.training.run import environment

POPULATION = 50_000
SETTINGS = (  # classes, test images per class, natural (as in training) or equal numbers
    (10, 4, "equal"),
    (10, 20, "equal"),
    (30, 5, "equal"),
    (100, 20, "equal"),
    (20, 15, "natural"),
    (50, 30, "natural"),
)


class Source:
    """A classifier with a population of logits to draw test sets from.

    Args:
        classes: number of classes, with 500 to 5 training images.
        strength: how far the logit of the true class is above the others, less for rare ones.
        seed: for the logits.
    """

    def __init__(self, classes: int, strength: float = 3.0, seed: int = 0) -> None:
        ranks = torch.arange(classes) / max(1, classes - 1)
        self.prior = ClassPrior((500 * 100 ** (-ranks)).round().long())
        generator = torch.Generator().manual_seed(seed)
        self.per_class = POPULATION // classes
        self.labels = torch.arange(classes).repeat_interleave(self.per_class)
        self.logits = torch.randn(len(self.labels), classes, generator=generator) * 1.3
        self.logits[torch.arange(len(self.labels)), self.labels] += (
            strength * (1 - 0.6 * ranks)[self.labels]
        )

    def counts(self, images: int, kind: str) -> Tensor:
        """Test images of each class."""
        if kind == "equal":
            return torch.full((self.prior.num_classes,), images)
        share = self.prior.probabilities * images * self.prior.num_classes
        return share.round().long().clamp(min=1)

    def draw(self, counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of a test set, and their labels."""
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        offset = torch.randint(self.per_class, (len(labels),), generator=generator)
        return labels * self.per_class + offset, labels


def truth(source: Source, counts: Tensor) -> dict[str, float]:
    """The accuracies behind test sets with these numbers of images per class."""
    correct = (source.logits.argmax(1) == source.labels).double()
    recall = correct.view(-1, source.per_class).mean(1)
    groups = {"accuracy": torch.arange(len(counts)), **source.prior.groups()}
    found = {
        name: float((recall[c] * counts[c]).sum() / counts[c].sum())
        for name, c in groups.items()
        if len(c)
    }
    return {**found, "balanced_accuracy": float(recall.mean()), "recall": recall}  # type: ignore[dict-item]


def coverage(classes: int, images: int, kind: str, trials: int) -> dict[str, Any]:
    """Share of intervals that contain the truth, by accuracy, and their mean width in points."""
    source = Source(classes)
    counts = source.counts(images, kind)
    true = truth(source, counts)
    recall: Any = true.pop("recall")
    held: dict[str, list[float]] = {name: [] for name in (*true, "recall of a class")}
    widths: dict[str, list[float]] = {name: [] for name in held}
    generator = torch.Generator().manual_seed(1)
    for _ in range(trials):
        rows, labels = source.draw(counts, generator)
        scores = score_samples(source.logits[rows], labels)
        for name, (low, high) in accuracy_intervals(scores, source.prior).items():
            if name in true:
                held[name].append(float(low <= true[name] <= high))
                widths[name].append(100 * (high - low))
        hits = torch.bincount(labels[scores.correct], minlength=classes)
        low, high = wilson_interval(hits, counts)
        held["recall of a class"].append(
            float(((low <= recall) & (recall <= high)).double().mean())
        )
        widths["recall of a class"].append(100 * float((high - low).mean()))
    return {
        "classes": classes,
        "images": images,
        "kind": kind,
        "test_images": int(counts.sum()),
        "coverage": {name: statistics.fmean(values) for name, values in held.items()},
        "width": {name: statistics.fmean(values) for name, values in widths.items()},
    }


def best(
    classes: int,
    images: int,
    kind: str,
    trials: int,
    shared: float,
    gain: float = 0.0,
    runs: int = 2,
) -> dict[str, Any]:
    """How often a run is called the best.

    Args:
        classes: number of classes.
        images: mean number of test images per class.
        kind: see `Source.counts`.
        trials: number of test sets.
        shared: share of the variance of the logits that the runs have in common.
        gain: added to the strength of the last run.
        runs: number of runs.
    """
    source = Source(classes)
    counts = source.counts(images, kind)
    ranks = torch.arange(classes) / max(1, classes - 1)
    generator = torch.Generator().manual_seed(2)
    columns = (*KEY_COLUMNS, *MORE_COLUMNS)
    named = {column.key: 0 for column in columns}
    anywhere = 0
    names = [str(c) for c in range(classes)]
    for _ in range(trials):
        labels = torch.arange(classes).repeat_interleave(counts)
        at = torch.arange(len(labels))
        common = torch.randn(len(labels), classes, generator=generator)
        made = []
        for run in range(runs):
            own = torch.randn(len(labels), classes, generator=generator)
            logits = 1.3 * (shared**0.5 * common + (1 - shared) ** 0.5 * own)
            more = gain if run == runs - 1 else 0.0
            logits[at, labels] += ((3.0 + more) * (1 - 0.6 * ranks))[labels]
            made.append(RunData(str(run), names, source.prior, score_samples(logits, labels)))
        comparison = Comparison.of(made)
        found = {
            column.key: comparison.best(column.key, made, column.higher) is not None
            for column in columns
        }
        for name, said in found.items():
            named[name] += said
        anywhere += any(found.values())
    kept = {name: count / trials for name, count in named.items() if name in comparison.resampled}
    return {
        "classes": classes,
        "images": images,
        "kind": kind,
        "runs": runs,
        "shared": shared,
        "gain": gain,
        "by_column": kept,
        "anywhere": anywhere / trials,
    }


def check(scores: SampleScores, prior: ClassPrior) -> None:
    """Checks that the accuracies of the synthetic classifier can be told apart by a test."""
    metrics = metrics_from_scores(scores, prior)
    assert 0.3 < metrics["few"] < metrics["many"] < 0.95, metrics


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=200)
    options.add_argument("--out", type=Path, default=Path("results/intervals.json"))
    given = options.parse_args()
    source = Source(10)
    rows, labels = source.draw(source.counts(2000, "equal"), torch.Generator().manual_seed(0))
    check(score_samples(source.logits[rows], labels), source.prior)
    covered = [coverage(*setting, given.trials) for setting in SETTINGS]
    small = [setting for setting in SETTINGS if setting[0] * setting[1] <= 300]
    equal = [best(*setting, given.trials, shared) for setting in small for shared in (0.0, 0.7)]
    equal.append(best(30, 5, "equal", given.trials, 0.7, runs=4))
    better = [best(30, 10, "equal", given.trials, 0.7, gain) for gain in (0.1, 0.25, 0.5)]
    for row in covered:
        print(row["classes"], row["images"], row["kind"], row["coverage"])
    for row in (*equal, *better):
        print(
            row["classes"],
            row["images"],
            row["kind"],
            row["runs"],
            row["shared"],
            row["gain"],
            f"anywhere {row['anywhere']:.3f}",
            row["by_column"],
        )
    write_json(
        given.out,
        {
            "environment": environment(),
            "trials": given.trials,
            "coverage": covered,
            "best_of_equal_runs": equal,
            "best_of_a_better_run": better,
        },
    )


if __name__ == "__main__":
    main()
