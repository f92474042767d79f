"""Exponential moving averages of weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the parameters of `average` towards those of `model`: a <- decay a + (1 - decay) m.

    Buffers (the statistics of batch norm) of `average` are not changed: it collects its own.

    Args:
        average: the averaged network, changed in place.
        model: a network of the same architecture.
        decay: fraction of the old average that is kept, in [0, 1].

    Examples:
        >>> a, m = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(a.weight), nn.init.ones_(m.weight)
        >>> update_ema(a, m, decay=0.75)
        >>> a.weight.item()
        0.25
    """
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)
