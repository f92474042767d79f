"""The class prior: the number of samples per class, used by everything else."""

from collections.abc import Sequence
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_indices, as_tensor, in_class_order
from longtail.errors import InputError
from longtail.ranges import check_range

MANY = 100
FEW = 20
LARGEST_WHOLE = 2.0**53  # above it, float64 does not represent every integer


def check_prior(what: str, prior: object) -> None:
    """Raises an error for anything but a `ClassPrior`.

    Args:
        what: name in the message, such as `prior of LogitAdjustedLoss`.
        prior: the argument's value.

    Raises:
        InputError: for counts, a list, or anything else.
    """
    if not isinstance(prior, ClassPrior):
        raise InputError(f"{what} must be a ClassPrior, got {type(prior).__name__}")


class ClassPrior:
    """Training counts of each class, and the prior derived from them.

    Classes are counted once: losses, queues, adjustment, metrics and reports all take this object.

    Args:
        counts: (num_classes,), samples of each class, every one above zero. Pixel counts and other
            fractional masses are allowed. A pandas Series is read by its index, the class indices.

    Attributes:
        counts: (num_classes,), as given: int64 for whole counts, else float64.
        probabilities: (num_classes,), float64, sums to 1.
        log_prior: (num_classes,), float64, natural logarithm of `probabilities`; every loss casts
            it to the type that it computes in.
        imbalance: largest count divided by the smallest, 1 or more.

    Raises:
        ValueError: when `counts` is empty, not one-dimensional, not finite, or 0 for a class.

    Examples:
        >>> prior = ClassPrior([500, 50, 5])
        >>> prior.imbalance
        100.0
        >>> {name: classes.tolist() for name, classes in prior.groups().items()}
        {'many': [0], 'medium': [1], 'few': [2]}
    """

    counts: Tensor
    probabilities: Tensor
    log_prior: Tensor

    def __init__(self, counts: ArrayLike | Tensor | Sequence[float]) -> None:
        # A copy, so that a caller who continues counting does not change a prior in use.
        name = "counts of ClassPrior"
        values = as_tensor(in_class_order(counts, name), name).cpu().clone()
        if values.ndim != 1 or len(values) == 0:
            raise InputError(
                f"counts of ClassPrior must be a non-empty vector (num_classes,), "
                f"got shape {tuple(values.shape)}"
            )
        odd = (~torch.isfinite(values.double())).nonzero().flatten().tolist()
        if odd:
            raise InputError(
                f"counts of ClassPrior must be finite, got {values[odd[0]].item()} "
                f"for class {odd[0]}"
            )
        empty = (values.double() <= 0).nonzero().flatten().tolist()
        if empty:
            got = [values[c].item() for c in empty[:5]]
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise InputError(
                f"counts of ClassPrior must be above zero for every class, got {got} "
                f"for class {empty[:5]}{more}"
            )
        whole = not values.is_floating_point() or bool(
            ((values == values.round()) & (values < LARGEST_WHOLE)).all()
        )
        self.counts = values.long() if whole else values.double()
        self.probabilities = self.counts.double() / self.counts.double().sum()
        self.log_prior = self.counts.double().log() - self.counts.double().sum().log()

    @classmethod
    def from_labels(cls, labels: ArrayLike | Tensor, num_classes: int | None = None) -> Self:
        """Counts the labels of a training set.

        Args:
            labels: (samples,), class index of each sample.
            num_classes: number of classes; default: the largest label plus one.

        Raises:
            ValueError: when a label is not a class index, or a class has no sample.

        Examples:
            >>> ClassPrior.from_labels([0, 0, 1]).counts.tolist()
            [2, 1]
        """
        values = as_tensor(labels, "labels of ClassPrior").cpu()
        if values.ndim != 1 or len(values) == 0:
            raise InputError(
                f"labels of ClassPrior must be a non-empty vector, got shape {tuple(values.shape)}"
            )
        if num_classes is not None:
            check_range("num_classes of ClassPrior", num_classes, least=1, most=2**31, whole=True)
            num_classes = int(num_classes)
        indices = as_indices(values, "labels of ClassPrior", num_classes)
        return cls(torch.bincount(indices, minlength=num_classes or 0))

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.counts)

    @property
    def imbalance(self) -> float:
        """Largest count over the smallest one."""
        return float(self.counts.max() / self.counts.min())

    def groups(self) -> dict[str, Tensor]:
        """Class indices of the many (count > 100), medium and few (count < 20) groups.

        Returns: int64 class indices by group name, ascending; a group without a class is empty.
        """
        head, tail = self.counts > MANY, self.counts < FEW
        masks = {"many": head, "medium": ~(head | tail), "few": tail}
        return {name: mask.nonzero().flatten() for name, mask in masks.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassPrior) and torch.equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash(tuple(self.counts.tolist()))

    def __repr__(self) -> str:
        return (
            f"ClassPrior(num_classes={self.num_classes}, total={self.counts.sum().item()}, "
            f"imbalance={self.imbalance:g})"
        )
