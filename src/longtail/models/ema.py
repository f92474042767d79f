"""Exponential moving averages of weights."""

from itertools import zip_longest

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.ranges import check_range


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the parameters of `average` towards those of `model`: a <- decay a + (1 - decay) m.

    Buffers (the statistics of batch norm) of `average` are not changed: it collects its own.

    Args:
        average: the averaged network, changed in place.
        model: a network of the same architecture.
        decay: fraction of the old average that is kept, in [0, 1].

    Raises:
        InputError: when `decay` is out of range, or the parameters have other shapes.

    Examples:
        >>> a, m = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(a.weight), nn.init.ones_(m.weight)
        >>> update_ema(a, m, decay=0.75)
        >>> a.weight.item()
        0.25
    """
    check_range("decay of update_ema", decay, least=0, most=1)
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(model.parameters())
    shapes = [[tuple(parameter.shape) for parameter in each] for each in (ours, theirs)]
    if shapes[0] != shapes[1]:  # which would be broadcast
        differ = next(pair for pair in zip_longest(*shapes) if pair[0] != pair[1])
        raise InputError(
            f"average and model of update_ema must have parameters of the same shapes, "
            f"got {differ[0]} and {differ[1]}"
        )
    torch._foreach_lerp_(ours, theirs, 1 - decay)
