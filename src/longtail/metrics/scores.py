"""One pass over the logits, whose results are the source of all other metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError
from longtail.ranges import MAX_COUNT, check_range

CHUNK_ELEMENTS = 2**18  # 2 MiB of float64 at a time, which stays in the cache
BINS = 20


@dataclass(frozen=True)
class SampleScores:
    """Scores of the evaluated logits, on the CPU.

    Attributes:
        labels: (N,) int64, true class.
        predicted: (N,) int64, class of the largest logit; the first of equal ones.
        confidence: (N,) float64, probability of the predicted class, in (0, 1].
        nll: (N,) float64, -log probability of the true class, nats; infinite where it was 0.
        brier: (N,) float64, squared distance of the probabilities to the one-hot label, in [0, 2].
        class_gaps: (C, bins) float64, for each class and bin of its probability, the sum over
            samples of that probability minus 1 where the class is the true one.
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor
    class_gaps: Tensor

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_gaps)

    @property
    def bins(self) -> int:
        """Number of bins of the calibration errors."""
        return self.class_gaps.shape[1]

    @property
    def correct(self) -> Tensor:
        """(N,) bool, whether the predicted class is the true one."""
        return self.predicted == self.labels

    @classmethod
    def joined(cls, chunks: Sequence[Self]) -> Self:
        """The scores of several chunks of samples, in order."""
        per_sample = ("labels", "predicted", "confidence", "nll", "brier")
        columns = {name: torch.cat([getattr(c, name) for c in chunks]) for name in per_sample}
        gaps = torch.stack([chunk.class_gaps for chunk in chunks]).sum(dim=0)
        return cls(**columns, class_gaps=gaps)


@torch.no_grad()
def score_samples(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, bins: int = BINS
) -> SampleScores:
    """Evaluates the logits of each sample against its label, in chunks and in float64.

    Args:
        logits: (N, C), natural-log scores under the prior to evaluate; -inf rules a class out.
        labels: (N,), true class in [0, C), whole numbers of any type.
        bins: number of bins of equal width for the calibration errors.

    Raises:
        ValueError: when the shapes do not match, there is no sample, `bins` is below 1, a label is
            not a class index, or a row has NaN, +inf or no finite value at all.

    Examples:
        >>> logits = torch.tensor([[0.0, 0.0], [5.0, -torch.inf]])
        >>> scores = score_samples(logits, torch.tensor([1, 0]))
        >>> scores.predicted.tolist(), scores.confidence.tolist()
        ([0, 0], [0.5, 1.0])
    """
    check_range("bins", bins, least=1, most=MAX_COUNT, whole=True)
    logits, labels = as_tensor(logits, "logits"), as_tensor(labels, "labels")
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or not logits.numel():
        raise InputError(
            "logits and labels must be (N, C) and (N,) with N and C above zero, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    num_classes = logits.shape[1]
    labels = as_indices(labels, "labels", num_classes).to(logits.device)
    rows = max(1, CHUNK_ELEMENTS // num_classes)
    chunks = [
        _score_chunk(logits[start : start + rows], labels[start : start + rows], start, bins)
        for start in range(0, len(logits), rows)
    ]
    return SampleScores.joined(chunks)


def largest(logits: Tensor, name: str, first_row: int = 0) -> tuple[Tensor, Tensor]:
    """The largest logit of each row, and its class, the first of equal ones.

    Args:
        logits: (N, C).
        name: their name in error messages.
        first_row: index of the first row in error messages.

    Raises:
        ValueError: when a row has NaN, +inf or no finite value at all.
    """
    peak, predicted = logits.max(dim=1)
    undefined = (~peak.isfinite()).nonzero().flatten()  # the maximum propagates NaN
    if len(undefined):
        row = int(undefined[0])
        raise InputError(
            f"{name} must have a finite largest value in every row, "
            f"got {float(peak[row])} in row {first_row + row}"
        )
    return peak, predicted


def _score_chunk(logits: Tensor, labels: Tensor, first_row: int, bins: int) -> SampleScores:
    values = logits.double()
    peak, predicted = largest(values, "logits", first_row)
    shifted = values - peak[:, None]
    own = shifted.gather(1, labels[:, None]).squeeze(1)
    powers = shifted.exp_()
    total = powers.sum(dim=1)
    squares = torch.linalg.vector_norm(powers, dim=1).square() / total.square()
    brier = squares - 2 * own.exp() / total + 1
    return SampleScores(
        labels=labels.cpu(),
        predicted=predicted.cpu(),
        confidence=(1 / total).cpu(),
        nll=(total.log() - own).cpu(),
        brier=brier.clamp(min=0).cpu(),  # rounding may leave -1e-16 at exact probabilities
        class_gaps=class_gaps(powers / total[:, None], labels, bins).cpu(),
    )


def class_gaps(probabilities: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(C, bins): sum of the probabilities in each class's bins, minus the true samples there."""
    count = probabilities.shape[1]
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=labels.device)[1:-1]

    def place(values: Tensor, classes: Tensor) -> Tensor:
        return classes * bins + torch.bucketize(values, edges)

    # Fewer than `bins` probabilities of a row are above the first bin, and only those are sorted.
    first = edges[0] if bins > 1 else 1.0
    rows, classes = (probabilities > first).nonzero(as_tuple=True)
    high = probabilities[rows, classes]
    size = count * bins
    sums = torch.bincount(place(high, classes), weights=high, minlength=size)
    gaps = sums.double().view(count, bins)  # without a weight, its values are integers
    gaps[:, 0] += probabilities.sum(dim=0) - gaps.sum(dim=1)
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    return gaps - torch.bincount(place(own, labels), minlength=size).view(count, bins)
