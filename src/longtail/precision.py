"""Computation in float32 or better, under any autocast and for any type of inputs."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in the dtype that losses compute in: float64 if it is float64, else float32.

    Examples:
        >>> full_precision(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Context in which matrix products on the tensor's device keep the dtype of their inputs.

    Examples:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", torch.bfloat16), no_autocast(x):
        ...     (x @ x).dtype
        torch.float32
    """
    device = tensor.device.type
    if device == "meta":  # it has no autocast; torch.compile could not trace the check in 2.11
        return nullcontext()
    return torch.autocast(device, enabled=False)
