"""The confusion matrix, and the metrics that follow from its diagonal and margins."""

from dataclasses import dataclass
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError
from longtail.metrics.scores import SampleScores, score_samples


@dataclass(frozen=True)
class Confusion:
    """Diagonal and margins of a confusion matrix, from which accuracy, recall and F1 are computed.

    No metric needs the rest of the matrix, which takes 530 MB for 8,142 classes.

    Attributes:
        hits: (C,) int64, samples of each class that were predicted as it (the diagonal).
        support: (C,) int64, samples of each class (row sums).
        predicted: (C,) int64, samples predicted as each class (column sums).
    """

    hits: Tensor
    support: Tensor
    predicted: Tensor

    @classmethod
    def from_labels(
        cls, labels: ArrayLike | Tensor, predicted: ArrayLike | Tensor, num_classes: int
    ) -> Self:
        """Counts pairs of true and predicted class, both (N,) in [0, num_classes).

        Raises:
            ValueError: when a value is not a class index.

        Examples:
            >>> Confusion.from_labels([0, 0, 1], [0, 1, 1], num_classes=2).recall().tolist()
            [0.5, 1.0]
        """
        true, found = (
            as_indices(as_tensor(values, name), name, num_classes)
            for values, name in (
                (labels, "labels of Confusion"),
                (predicted, "predicted of Confusion"),
            )
        )
        if true.ndim != 1 or true.shape != found.shape:
            raise InputError(
                "labels and predicted of Confusion must both be (N,), got "
                f"{tuple(true.shape)} and {tuple(found.shape)}"
            )
        return cls(
            hits=torch.bincount(true[true == found], minlength=num_classes),
            support=torch.bincount(true, minlength=num_classes),
            predicted=torch.bincount(found, minlength=num_classes),
        )

    @classmethod
    def from_scores(cls, scores: SampleScores) -> Self:
        """Counts the samples of scores."""
        return cls.from_labels(scores.labels, scores.predicted, scores.num_classes)

    def accuracy(self, classes: Tensor | None = None) -> float:
        """Fraction of correct predictions among the samples of `classes` (default: all).

        NaN without a sample.
        """
        hits, support = self.hits, self.support
        if classes is not None:
            hits, support = hits[classes], support[classes]
        return float(hits.sum().double() / support.sum())

    def recall(self) -> Tensor:
        """(C,) float64, fraction of each class's samples predicted as it; NaN without a sample."""
        return self.hits.double() / self.support

    def precision(self) -> Tensor:
        """(C,) float64, fraction of correct ones among the samples predicted as each class.

        NaN for a class that was never predicted.
        """
        return self.hits.double() / self.predicted

    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have a sample."""
        return float(self.recall()[self.support > 0].mean())

    def f1(self) -> Tensor:
        """(C,) float64, 2 hits / (support + predicted).

        NaN for a class that has no sample and was never predicted.
        """
        return 2 * self.hits.double() / (self.support + self.predicted)


def confusion_matrix(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> Tensor:
    """The whole confusion matrix: samples of a class (row) that were predicted as a class (column).

    Equal to `torchmetrics.functional.confusion_matrix`, which needs samples x C^2 numbers at once
    if torch's deterministic algorithms are enabled.

    Args:
        logits: (N, C).
        labels: (N,), true class in [0, C).

    Returns: (C, C) int64.
    Raises: ValueError: see `score_samples`.

    Examples:
        >>> confusion_matrix(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1])).tolist()
        [[1, 0], [1, 0]]
    """
    scores = score_samples(logits, labels)
    count = scores.num_classes
    pairs = scores.labels * count + scores.predicted
    return torch.bincount(pairs, minlength=count**2).view(count, count)


def per_class_recall(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> Tensor:
    """Fraction of each class's samples that were predicted as it.

    Args:
        logits: (N, C).
        labels: (N,), true class in [0, C).

    Returns: (C,) float64; NaN for a class without a sample.
    Raises: ValueError: see `score_samples`.

    Examples:
        >>> per_class_recall(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0])).tolist()
        [0.5, nan]
    """
    return Confusion.from_scores(score_samples(logits, labels)).recall()
