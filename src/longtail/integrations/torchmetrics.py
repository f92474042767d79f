"""torchmetrics: accuracy by class frequency, balanced accuracy and class-wise calibration.

Each is a `torchmetrics.Metric`: it sums counts over batches and processes and has `plot()`. Memory
is (C,), or (C, bins) for the calibration error, whatever the number of samples.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from longtail.arrays import as_indices
from longtail.errors import InputError
from longtail.metrics.scores import class_gaps, largest
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import check_range


class _Counts(Metric):
    """Correct predictions and samples of each class."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    correct: Tensor
    support: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name in ("correct", "support"):
            zeros = torch.zeros(num_classes, dtype=torch.int64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts a batch.

        Args:
            preds: (N, C) logits or probabilities, or (N,) predicted classes.
            target: (N,) true classes.

        Raises:
            InputError: if the shapes do not match, a class is out of range, or a row of `preds`
                has NaN, +inf or no finite value.
        """
        predicted, target = _checked(preds, target, self.num_classes)
        self.support += torch.bincount(target, minlength=self.num_classes)
        self.correct += torch.bincount(target[predicted == target], minlength=self.num_classes)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots one value or several of `compute`; see `torchmetrics.Metric.plot`."""
        return self._plot(val, ax)


class GroupAccuracy(_Counts):
    """Accuracy over all samples and over those of the many, medium and few classes.

    Args:
        prior: class prior of the training set, which defines the groups.
        **kwargs: options of `torchmetrics.Metric`.

    Examples:
        >>> metric = GroupAccuracy(ClassPrior([500, 50, 5]))
        >>> metric.update(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2]))
        >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
        {'accuracy': 0.67, 'many': 1.0, 'medium': 1.0, 'few': 0.0}
    """

    def __init__(self, prior: ClassPrior, **kwargs: Any) -> None:
        check_prior("prior of GroupAccuracy", prior)
        super().__init__(prior.num_classes, **kwargs)
        self.groups = prior.groups()

    def compute(self) -> dict[str, Tensor]:
        """Fractions `accuracy`, `many`, `medium` and `few`; NaN for a group without a sample."""
        groups = {"accuracy": torch.arange(self.num_classes), **self.groups}
        return {
            name: self.correct[classes].sum() / self.support[classes].sum()
            for name, classes in groups.items()
        }


class BalancedAccuracy(_Counts):
    """Mean recall over the classes that have a sample.

    Args:
        num_classes: number of classes, C.
        **kwargs: options of `torchmetrics.Metric`.

    Examples:
        >>> metric = BalancedAccuracy(num_classes=2)
        >>> metric.update(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def compute(self) -> Tensor:
        """Scalar fraction; NaN without a sample."""
        recall = self.correct / self.support
        return recall[self.support > 0].mean()


class ClasswiseCalibrationError(Metric):
    """Mean over classes of the gap between predicted probability and frequency of a class.

    Like `longtail.metrics.classwise_ece`: for each class, the mean of |frequency - probability|
    over bins of equal width of its probability, weighted by the samples of a bin; then the mean
    over the classes.

    Args:
        num_classes: number of classes, C.
        bins: number of bins of equal width over [0, 1].
        **kwargs: options of `torchmetrics.Metric`.

    Examples:
        >>> metric = ClasswiseCalibrationError(num_classes=2)
        >>> metric.update(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([0, 0]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    gap: Tensor
    total: Tensor

    def __init__(self, num_classes: int, bins: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("bins of ClasswiseCalibrationError", bins, least=1, whole=True)
        self.num_classes, self.bins = num_classes, bins
        gap = torch.zeros(num_classes, bins, dtype=torch.float64)
        self.add_state("gap", default=gap, dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            preds: (N, C) probabilities.
            target: (N,) true classes.

        Raises:
            InputError: if the shapes do not match, a class is out of range, or `preds` are not
                probabilities.
        """
        if preds.ndim != 2 or preds.shape[1] != self.num_classes:
            raise InputError(
                f"preds must be (N, {self.num_classes}) probabilities, got {tuple(preds.shape)}"
            )
        _, target = _checked(preds, target, self.num_classes)
        if len(preds) and not (preds.min() >= 0 and preds.max() <= 1 + 1e-6):
            raise InputError(
                f"preds must be probabilities in [0, 1], got {float(preds.min()):g} to "
                f"{float(preds.max()):g}; apply softmax to logits"
            )
        self.gap += class_gaps(preds.double(), target, self.bins)
        self.total += len(target)

    def compute(self) -> Tensor:
        """Scalar in [0, 1]; NaN without a sample."""
        return (self.gap.abs().sum(dim=1) / self.total).mean()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots one value or several of `compute`; see `torchmetrics.Metric.plot`."""
        return self._plot(val, ax)


def _checked(preds: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Predicted and true classes (N,) as int64; `preds` are classes (N,) or scores (N, C)."""
    shapes = (target.shape, (*target.shape, num_classes))
    if target.ndim != 1 or preds.shape not in shapes:
        raise InputError(
            f"preds and target must have shapes (N, {num_classes}) or (N,), and (N,), "
            f"got {tuple(preds.shape)} and {tuple(target.shape)}"
        )
    if preds.ndim == 2:
        predicted = largest(preds, "preds")[1]
    else:
        predicted = as_indices(preds, "preds", num_classes)
    return predicted, as_indices(target, "target", num_classes)
