"""One pass over the logits; what it keeps of each sample is the source of all other figures."""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError

CHUNK_ELEMENTS = 2**18  # 2 MiB of float64 at a time, which stays in the cache


@dataclass(frozen=True)
class SampleScores:
    """What remains of each sample once its logits have been judged; lies on the CPU.

    Attributes:
        labels: (N,) int64, true class.
        predicted: (N,) int64, class of the largest logit; of equal ones the first.
        confidence: (N,) float64, probability of the predicted class, in (0, 1].
        nll: (N,) float64, -log probability of the true class, nats; infinite where it was 0.
        brier: (N,) float64, squared distance of the probabilities to the one-hot truth, in [0, 2].
        num_classes: number of classes, C.
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor
    num_classes: int


@torch.no_grad()
def score_samples(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> SampleScores:
    """Judges each sample's logits against its label, in chunks and in float64.

    Args:
        logits: (N, C), natural-log scores under the prior to be judged; -inf rules a class out.
        labels: (N,), true class in [0, C).

    Raises:
        ValueError: when the shapes do not fit, there is no sample, a label is no class, or a row
            has NaN, +inf or no finite value at all, so that it says nothing of its sample.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [5.0, -torch.inf]])
        >>> scores = score_samples(logits, torch.tensor([1, 0]))
        >>> scores.predicted.tolist(), scores.confidence.tolist()
        ([0, 0], [0.5, 1.0])
    """
    logits = as_tensor(logits, "logits")
    labels = _checked_labels(logits, as_tensor(labels, "labels"))
    num_classes = logits.shape[1]
    rows = max(1, CHUNK_ELEMENTS // num_classes)
    parts = [
        _score_chunk(logits[start : start + rows], labels[start : start + rows], start)
        for start in range(0, len(logits), rows)
    ]
    predicted, confidence, nll, brier = (torch.cat(c).cpu() for c in zip(*parts, strict=True))
    return SampleScores(labels.cpu(), predicted, confidence, nll, brier, num_classes)


def _score_chunk(
    logits: Tensor, labels: Tensor, first_row: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = logits.double()
    peak, predicted = values.max(dim=1)
    undefined = (~peak.isfinite()).nonzero().flatten()  # the maximum passes NaN on
    if len(undefined):
        row = int(undefined[0])
        raise InputError(
            "logits must have a finite largest value in every row, "
            f"got {float(peak[row])} in row {first_row + row}"
        )
    shifted = values - peak[:, None]
    own = shifted.gather(1, labels[:, None]).squeeze(1)
    powers = shifted.exp_()
    total = powers.sum(dim=1)
    squares = torch.linalg.vector_norm(powers, dim=1).square() / total.square()
    brier = squares - 2 * own.exp() / total + 1
    # Rounding may leave -1e-16 where the probabilities are exact.
    return predicted, 1 / total, total.log() - own, brier.clamp(min=0)


def _checked_labels(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or not logits.numel():
        raise InputError(
            "logits and labels must be (N, C) and (N,) with N and C above zero, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    labels = as_indices(labels, "labels").to(logits.device)
    wrong = ((labels < 0) | (labels >= logits.shape[1])).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"labels must lie in [0, {logits.shape[1]}), got {int(labels[row])} in row {row}"
        )
    return labels
