"""Sampling strategies."""

from typing import Literal

import torch
from torch import Tensor

from longtail.data.stratified import rank_within_class
from longtail.errors import InputError

Sampling = Literal["sequential", "shuffle", "class_balanced", "square_root"]
# Of a class's count, in proportion to which it is drawn.
POWERS = {"class_balanced": 0.0, "square_root": 0.5}


def draw(labels: Tensor, sampler: Sampling, generator: torch.Generator) -> Tensor:
    """The order of one epoch.

    `sequential` and `shuffle` see every image once. `class_balanced` draws the class uniformly and
    `square_root` in proportion to the square root of its count (Kang et al., Decoupling
    Representation and Classifier for Long-Tailed Recognition, ICLR 2020, arXiv 1910.09217,
    equation 1 with q = 0 and q = 1/2); an epoch is then as many draws as there are images.

    Args:
        labels: (N,) int64, on the CPU.
        sampler: the rule.
        generator: on the CPU; the same state gives the same order.

    Returns: (N,) int64, places in `labels`.

    Example:
        >>> labels = torch.tensor([0] * 98 + [1] * 2)
        >>> order = draw(labels, "class_balanced", torch.Generator().manual_seed(0))
        >>> bool(labels[order].sum() > 30)
        True
    """
    if sampler == "sequential":
        return torch.arange(len(labels))
    if sampler == "shuffle":
        return torch.randperm(len(labels), generator=generator)
    if sampler in POWERS:
        return _by_class(labels, POWERS[sampler], generator)
    raise InputError(
        f"sampler must be sequential, shuffle, class_balanced or square_root, got {sampler!r}"
    )


def _by_class(labels: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """Draws classes with probability proportional to count^power, then an image of each.

    The images of a class come in a random order and start over when all have been drawn, as in the
    published code: no image comes twice before all of its class came once.
    """
    counts = torch.bincount(labels)
    weight = torch.where(counts > 0, counts.double() ** power, 0.0)
    drawn = torch.multinomial(weight, len(labels), replacement=True, generator=generator)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    begin = counts.cumsum(0) - counts
    return by_class[begin[drawn] + rank_within_class(drawn) % counts[drawn]]
