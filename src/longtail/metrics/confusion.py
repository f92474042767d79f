"""The confusion matrix, and the figures that follow from its diagonal and margins."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from longtail.metrics.scores import score_samples


@dataclass(frozen=True)
class Confusion:
    """Diagonal and margins of a confusion matrix: the one source of accuracy, recall and F1.

    No figure needs the rest of the matrix, which takes 530 MB at 8,142 classes.

    Attributes:
        hits: (C,) int64, samples of each class that were predicted as it (the diagonal).
        support: (C,) int64, samples of each class (sums over the rows).
        predicted: (C,) int64, samples predicted as each class (sums over the columns).
    """

    hits: Tensor
    support: Tensor
    predicted: Tensor

    @classmethod
    def from_labels(cls, labels: Tensor, predicted: Tensor, num_classes: int) -> Self:
        """Counts pairs of true and predicted class, both (N,) in [0, num_classes).

        Example:
            >>> labels, predicted = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
            >>> Confusion.from_labels(labels, predicted, num_classes=2).recall().tolist()
            [0.5, 1.0]
        """
        return cls(
            hits=torch.bincount(labels[labels == predicted], minlength=num_classes),
            support=torch.bincount(labels, minlength=num_classes),
            predicted=torch.bincount(predicted, minlength=num_classes),
        )

    def accuracy(self, classes: Tensor | None = None) -> float:
        """Share of right predictions among the samples of `classes` (all); NaN without a sample."""
        hits, support = self.hits, self.support
        if classes is not None:
            hits, support = hits[classes], support[classes]
        return float(hits.sum().double() / support.sum())

    def recall(self) -> Tensor:
        """(C,) float64, share of each class's samples that were found; NaN without a sample."""
        return self.hits.double() / self.support

    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have a sample."""
        return float(self.recall()[self.support > 0].mean())

    def f1(self) -> Tensor:
        """(C,) float64, 2 hits / (support + predicted); 0 for a class on neither side."""
        return 2 * self.hits.double() / (self.support + self.predicted).clamp(min=1)


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """The whole confusion matrix: samples of class (row) that were predicted as class (column).

    Departs from `torchmetrics.functional.confusion_matrix` in: nothing but the cost. That one holds
    samples x C^2 numbers at once where torch's deterministic algorithms are switched on.

    Args:
        logits: (N, C).
        labels: (N,), true class in [0, C).

    Returns: (C, C) int64.
    Raises: ValueError: see `score_samples`.

    Example:
        >>> confusion_matrix(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1])).tolist()
        [[1, 0], [1, 0]]
    """
    scores = score_samples(logits, labels)
    count = scores.num_classes
    pairs = scores.labels * count + scores.predicted
    return torch.bincount(pairs, minlength=count**2).view(count, count)


def per_class_recall(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of each class's samples that were predicted as it.

    Args:
        logits: (N, C).
        labels: (N,), true class in [0, C).

    Returns: (C,) float64, fractions; NaN for a class without a sample.
    Raises: ValueError: see `score_samples`.

    Example:
        >>> per_class_recall(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0])).tolist()
        [0.5, nan]
    """
    scores = score_samples(logits, labels)
    return Confusion.from_labels(scores.labels, scores.predicted, scores.num_classes).recall()
