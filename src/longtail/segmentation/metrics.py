"""Segmentation metrics, all from one confusion matrix of the data set."""

import math

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.segmentation.masks import IGNORED


def pixel_confusion(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Confusion matrix over pixels: true class (row) against predicted class (column).

    The matrix of a data set is the sum of those of its images.

    Args:
        predicted: any shape, class in [0, num_classes).
        target: the same shape, class, or 255 where the pixel is ignored.
        num_classes: C.

    Returns: (C, C) int64.
    Raises: InputError: when the shapes differ, a prediction is not a class, or a target is neither
        a class nor 255.
    Examples:
        >>> pixel_confusion(torch.tensor([[0, 1]]), torch.tensor([[1, 255]]), 2).tolist()
        [[0, 0], [1, 0]]
    """
    if predicted.shape != target.shape:
        raise InputError(
            f"predicted and target of pixel_confusion must have the same shape, "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    low, high = predicted.aminmax() if predicted.numel() else (0, 0)
    if low < 0 or high >= num_classes:
        raise InputError(
            f"predicted of pixel_confusion must lie in [0, {num_classes}), "
            f"got {int(low)} to {int(high)}"
        )
    target = target.long()
    wrong = target[((target < 0) | (target >= num_classes)) & (target != IGNORED)]
    if len(wrong):
        raise InputError(
            f"target of pixel_confusion must lie in [0, {num_classes}) or be {IGNORED}, "
            f"got {sorted(set(wrong.tolist()))[:5]}"
        )
    rows = target.clamp(max=num_classes).flatten()  # ignored pixels in a row after the classes
    counts = torch.bincount(
        rows * num_classes + predicted.flatten(), minlength=(num_classes + 1) * num_classes
    )
    return counts[: num_classes**2].view(num_classes, num_classes)


def class_iou(confusion: Tensor) -> Tensor:
    """(C,) float64, intersection over union; NaN for a class neither present nor predicted.

    Examples:
        >>> class_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).tolist()
        [0.75, 0.8, nan]
    """
    hits = confusion.diagonal().double()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def class_accuracy(confusion: Tensor) -> Tensor:
    """(C,) float64, recall of each class's pixels; NaN for a class without any."""
    return confusion.diagonal().double() / confusion.sum(1)


def pixel_groups(prior: ClassPrior) -> dict[str, Tensor]:
    """Head, medium and tail classes: the thirds of the classes by training pixels.

    The most frequent round(C / 3) classes are the head, as many of the rarest the tail. The
    thresholds of image classification (100 and 20 samples) are meaningless for pixels.

    Returns: name to int64 class indices, most frequent first.
    Examples:
        >>> {name: c.tolist() for name, c in pixel_groups(ClassPrior([5, 90, 20, 1])).items()}
        {'head': [1], 'medium': [2, 0], 'tail': [3]}
    """
    order = prior.counts.argsort(descending=True, stable=True)
    third = max(1, round(prior.num_classes / 3)) if prior.num_classes > 1 else 0
    last = prior.num_classes - third
    return {"head": order[:third], "medium": order[third:last], "tail": order[last:]}


def segmentation_metrics(confusion: Tensor, prior: ClassPrior) -> dict[str, float]:
    """Mean IoU, mean and pixel accuracy, and the mean IoU of head, medium and tail classes.

    Args:
        confusion: (C, C), true (row) against predicted (column), summed over the data set.
        prior: pixels of each class in the training set, which defines the groups (`pixel_groups`).

    Returns: `miou`, `macc`, `pixel_accuracy`, `head_iou`, `medium_iou`, `tail_iou`, fractions. A
        mean is over the classes for which the metric is defined; NaN if there are none.
    Raises: InputError: when the matrix does not have the prior's classes.
    Examples:
        >>> metrics = segmentation_metrics(torch.tensor([[3, 1], [0, 4]]), ClassPrior([2, 1]))
        >>> round(metrics["miou"], 3), metrics["macc"], metrics["tail_iou"]
        (0.775, 0.875, 0.8)
    """
    if confusion.shape != (prior.num_classes, prior.num_classes):
        raise InputError(
            f"confusion must be ({prior.num_classes}, {prior.num_classes}) for the prior's "
            f"classes, got {tuple(confusion.shape)}"
        )
    iou = class_iou(confusion)
    total = int(confusion.sum())
    return {
        "miou": float(iou.nanmean()),
        "macc": float(class_accuracy(confusion).nanmean()),
        "pixel_accuracy": int(confusion.diagonal().sum()) / total if total else math.nan,
        **{
            f"{name}_iou": float(iou[group].nanmean())
            for name, group in pixel_groups(prior).items()
        },
    }
