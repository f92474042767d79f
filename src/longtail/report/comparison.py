"""Which runs on a page are comparable, and which differences are significant."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.metrics import best_run, resampled_metrics
from longtail.report.run import RunData

FEWEST = 10  # test images below which a metric is shown in grey and never called the best


@dataclass(frozen=True)
class Comparison:
    """Runs with the same test images and training counts, on resampled test sets.

    Attributes:
        members: positions of the comparable runs on the page.
        resampled: metric name to (members, resamples); empty for fewer than two.
        counts: number of test images of each group of classes, and of all.
    """

    members: list[int]
    resampled: dict[str, Tensor]
    counts: dict[str, int]

    @classmethod
    def of(cls, runs: Sequence[RunData]) -> "Comparison":
        """Compares the first evaluated run with those that have the same test images and counts."""
        first = next((run for run in runs if run.scores), None)
        if first is None or first.scores is None or first.prior is None:
            return cls([], {}, {})
        members = [position for position, run in enumerate(runs) if _alike(run, first)]
        found = [scores for position in members if (scores := runs[position].scores)]
        resampled = resampled_metrics(found, first.prior) if len(found) > 1 else {}
        return cls(members, resampled, images_per_group(first))

    def best(self, name: str, runs: Sequence[RunData], higher: bool) -> int | None:
        """Position of the run whose metric is significantly the best, if there is one."""
        if name not in self.resampled or self.counts.get(name, self.counts["accuracy"]) < FEWEST:
            return None
        values = [float(runs[position].metrics[name]) for position in self.members]
        best = best_run(self.resampled[name], values, higher)
        return None if best is None else self.members[best]

    def difference(self, name: str, run: int, other: int) -> tuple[float, float] | None:
        """95 % interval of a metric of one run minus that of another; None: not comparable."""
        if name not in self.resampled or not {run, other} <= set(self.members):
            return None
        one, two = (self.resampled[name][self.members.index(position)] for position in (run, other))
        low, high = (one - two).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        return float(low), float(high)


def images_per_group(run: RunData) -> dict[str, int]:
    """Number of test images: of all classes, under `accuracy`, and of each group."""
    assert run.scores is not None
    assert run.prior is not None
    support = torch.bincount(run.scores.labels, minlength=run.prior.num_classes)
    groups = {name: int(support[c].sum()) for name, c in run.prior.groups().items()}
    return {"accuracy": len(run.scores.labels), **groups}


def _alike(run: RunData, first: RunData) -> bool:
    if run.scores is None or first.scores is None:
        return False
    return (
        run.prior == first.prior
        and _file_names(run) == _file_names(first)
        and torch.equal(run.scores.labels, first.scores.labels)
    )


def _file_names(run: RunData) -> list[str]:
    """Names without their folders, which differ between machines."""
    return [path.rpartition("/")[2] for path in run.paths]
