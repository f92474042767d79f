"""Splitting class by class."""

import numpy as np
import torch
from torch import Tensor

from longtail.data.dataset import Split
from longtail.errors import InputError


def rank_within_class(labels: Tensor) -> Tensor:
    """How many earlier entries have the same label, (N,) int64.

    Example:
        >>> rank_within_class(torch.tensor([4, 0, 4, 4])).tolist()
        [0, 0, 1, 2]
    """
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    begin = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(labels), device=labels.device) - begin[labels[order]]
    return ranks


def hold_out(labels: Tensor, fraction: float, seed: int, least: int = 0) -> Tensor:
    """Which images to set aside: the given share of each class, rounded.

    At least one image of a class is never set aside, so a class with one image keeps it.

    Args:
        labels: (N,) int64.
        fraction: share of each class to set aside, in [0, 1).
        seed: decides which images.
        least: images to set aside of every class that has more than that.

    Returns: (N,) bool.

    Example:
        >>> hold_out(torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), 0.2, seed=0, least=1).sum().item()
        2
    """
    counts = torch.bincount(labels)
    wanted = (counts * fraction).round().long().clamp(min=least)
    wanted = torch.minimum(wanted, (counts - 1).clamp(min=0))
    shuffled = torch.from_numpy(np.random.RandomState(seed).permutation(len(labels)))
    ranks = torch.empty_like(shuffled)
    ranks[shuffled] = rank_within_class(labels[shuffled])
    return ranks < wanted[labels]


def empty_part(name: str, fraction: float, labels: Tensor) -> str:
    """What to say where a fraction of every class is less than an image."""
    largest = torch.bincount(labels).max().item()
    return f"{name} {fraction:g} leaves its part empty: the largest class has {largest} images"


def cut_validation(train: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Parts a training split in what stays and a validation part; None when `fraction` is 0."""
    if fraction == 0:
        return train, None
    aside = hold_out(train.labels, fraction, seed)
    if not aside.any():
        raise InputError(empty_part("val_fraction", fraction, train.labels))
    return train.take((~aside).nonzero().flatten()), train.take(aside.nonzero().flatten())
