"""Calibration: does a confidence of 80 % mean right in 80 of 100 cases?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.metrics.scores import SampleScores, score_samples


@dataclass(frozen=True)
class CalibrationCurve:
    """Accuracy against confidence, in bins of equal width over [0, 1].

    Attributes:
        confidence: (bins,) float64, mean confidence of a bin's samples; NaN where it has none.
        accuracy: (bins,) float64, share of right predictions among them; NaN likewise.
        count: (bins,) int64, samples of the bin.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @classmethod
    def from_scores(cls, scores: SampleScores, bins: int) -> "CalibrationCurve":
        """Sorts samples into bins (lower, upper], as Guo et al. do.

        Raises:
            ValueError: when `bins` is below 1.
        """
        if bins < 1:
            raise InputError(f"bins of a calibration curve must be 1 or more, got {bins}")
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        place = torch.bucketize(scores.confidence, edges[1:-1])
        right = (scores.predicted == scores.labels).double()
        count = torch.bincount(place, minlength=bins)
        confidence, accuracy = (
            torch.bincount(place, weights=values, minlength=bins) / count
            for values in (scores.confidence, right)
        )
        return cls(confidence, accuracy, count)

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over the samples of |accuracy - confidence| by bin.

        Equation 3 of Guo et al., On calibration of modern neural networks, ICML 2017,
        arXiv 1706.04599.
        """
        gap = (self.accuracy - self.confidence).abs().nan_to_num(0.0)  # empty bins weigh nothing
        return float((gap * self.count).sum() / self.count.sum())


def calibration_curve(logits: Tensor, labels: Tensor, bins: int = 20) -> CalibrationCurve:
    """Accuracy against confidence of the predicted class.

    Args:
        logits: (N, C), natural-log scores under the prior to be judged.
        labels: (N,), true class in [0, C).
        bins: number of bins of equal width.

    Raises: ValueError: when `bins` is below 1; see also `score_samples`.

    Example:
        >>> curve = calibration_curve(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), bins=2)
        >>> curve.count.tolist(), curve.accuracy.tolist(), curve.ece
        ([4, 0], [0.75, nan], 0.25)
    """
    return CalibrationCurve.from_scores(score_samples(logits, labels), bins)
