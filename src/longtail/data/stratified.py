"""Stratified splits."""

import numpy as np
import torch
from torch import Tensor

from longtail.data.dataset import Split
from longtail.errors import InputError


def rank_within_class(labels: Tensor) -> Tensor:
    """Number of earlier entries with the same label, (N,) int64.

    Examples:
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
    """Chooses images to hold out: the given fraction of each class, rounded.

    One image of each class is never held out, so a class with a single image keeps it.

    Args:
        labels: (N,) int64.
        fraction: fraction of each class to hold out, in [0, 1).
        seed: seed of the choice.
        least: images to hold out of every class that has more than that.

    Returns: (N,) bool mask of the images held out.

    Examples:
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


def empty_split(name: str, fraction: float, labels: Tensor) -> str:
    """Message for a fraction that holds out no image of any class."""
    largest = torch.bincount(labels).max().item()
    return f"{name} {fraction:g} leaves its split empty: the largest class has {largest} images"


def cut_validation(train: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Divides a training split into training and validation; no validation if `fraction` is 0."""
    if fraction == 0:
        return train, None
    held_out = hold_out(train.labels, fraction, seed)
    if not held_out.any():
        raise InputError(empty_split("val_fraction", fraction, train.labels))
    return train.take((~held_out).nonzero().flatten()), train.take(held_out.nonzero().flatten())
