"""Calibration: is a prediction with a confidence of 80 % correct in 80 of 100 cases?"""

from dataclasses import dataclass
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.metrics.scores import BINS, SampleScores, score_samples


@dataclass(frozen=True)
class CalibrationCurve:
    """Accuracy against confidence, in bins of equal width over [0, 1].

    Attributes:
        confidence: (bins,) float64, mean confidence of the samples of each bin; NaN if empty.
        accuracy: (bins,) float64, fraction of correct predictions among them; NaN if empty.
        count: (bins,) int64, number of samples in each bin.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @classmethod
    def from_scores(cls, scores: SampleScores) -> Self:
        """Sorts samples into bins (lower, upper], as Guo et al. do."""
        edges = torch.linspace(0, 1, scores.bins + 1, dtype=torch.float64)
        bin_of = torch.bucketize(scores.confidence, edges[1:-1])
        count = torch.bincount(bin_of, minlength=scores.bins)
        confidence, accuracy = (
            torch.bincount(bin_of, weights=values, minlength=scores.bins) / count
            for values in (scores.confidence, scores.correct.double())
        )
        return cls(confidence, accuracy, count)

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over the samples of |accuracy - confidence| per bin.

        Equation 3 of Guo et al., On calibration of modern neural networks, ICML 2017,
        arXiv 1706.04599.
        """
        gap = (self.accuracy - self.confidence).abs().nan_to_num(0.0)  # empty bins have no weight
        return float((gap * self.count).sum() / self.count.sum())


def calibration_curve(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, bins: int = BINS
) -> CalibrationCurve:
    """Accuracy against the confidence of the predicted class.

    Args:
        logits: (N, C), natural-log scores under the prior to evaluate.
        labels: (N,), true class in [0, C).
        bins: number of bins of equal width.

    Raises: ValueError: see `score_samples`.

    Examples:
        >>> curve = calibration_curve(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), bins=2)
        >>> curve.count.tolist(), curve.accuracy.tolist(), curve.ece
        ([4, 0], [0.75, nan], 0.25)
    """
    return CalibrationCurve.from_scores(score_samples(logits, labels, bins))


def classwise_ece(scores: SampleScores) -> float:
    """Class-wise expected calibration error: the calibration error of each class, averaged.

    For each class, all samples are sorted into bins by the probability of that class; its error is
    the mean over the samples of |fraction of the class - mean probability| per bin. Equation 3 of
    Kull et al., Beyond temperature scaling, NeurIPS 2019, arXiv 1910.12656; reported in LADE's
    Table 10. With many classes most probabilities are near 0, so that the values are small.

    Examples:
        >>> classwise_ece(score_samples(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])))
        0.25
    """
    return float(scores.class_gaps.abs().sum()) / (len(scores.labels) * scores.num_classes)
