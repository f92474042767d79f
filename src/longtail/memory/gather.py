"""Rows of all processes, in rank order: keys for a queue, or a batch with its gradient."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad


def this_process() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather_with_grad(tensor: Tensor, *, ragged: bool = False) -> Tensor:
    """Joins the rows of all processes, in rank order; gradients flow back to each process.

    Every process gets, for its own rows, the sum of the gradients of all processes. A run then
    minimises the mean of the processes' losses, since the gradients of weights are averaged over
    them. The loss of a step is correct if that mean is the loss of the global batch, which is the
    case for either of:

    - each process takes the mean over the whole gathered batch, the same number on all of them (the
        simplest way: rows, classes and weights may differ between processes);
    - each process takes the mean over its own anchors, the same number on all of them, against the
      gathered members.

    Never divide or multiply by the number of processes.

    Args:
        tensor: (rows, ...), of any type; class indices are joined without a gradient.
        ragged: the processes may hold different numbers of rows; see `gather_keys`.

    Returns: (rows of all processes, ...); the input itself with one process.

    Examples:
        >>> gather_with_grad(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not _several():
        return tensor
    gathered: Tensor = _Gather.apply(tensor, _sizes(tensor) if ragged else None)
    return gathered


@torch.no_grad()
def gather_keys(*tensors: Tensor, ragged: bool = False) -> tuple[Tensor, ...]:
    """Joins the rows of all processes, in rank order; no gradient flows.

    Args:
        *tensors: (rows, ...) each, the same number of rows in all of them, say features, labels
            and index of the batch.
        ragged: the processes may have different numbers of rows. They exchange these numbers
            first, for which the host waits on a GPU.

    Returns: (rows of all processes, ...) each, the same on every process; the input itself with one
        process.

    Examples:
        >>> gather_keys(torch.tensor([1, 2]), torch.tensor([3, 4]))
        (tensor([1, 2]), tensor([3, 4]))
    """
    if not _several():
        return tensors
    if not ragged:
        return tuple(_join(tensor) for tensor in tensors)
    sizes = _sizes(tensors[0])
    return tuple(_join_ragged(tensor, sizes) for tensor in tensors)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int] | None) -> Tensor:
        rank, ctx.rows = dist.get_rank(), len(tensor)
        ctx.first = rank * ctx.rows if sizes is None else sum(sizes[:rank])
        return _join(tensor) if sizes is None else _join_ragged(tensor, sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)  # others may have the gradient
        dist.all_reduce(total)
        return total[ctx.first :][: ctx.rows], None


def _several() -> bool:
    return this_process()[1] > 1


def _sizes(tensor: Tensor) -> list[int]:
    """Rows of every process, in rank order."""
    sizes: list[int] = _join(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    return sizes


def _join(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _join_ragged(tensor: Tensor, sizes: list[int]) -> Tensor:
    missing = max(sizes) - len(tensor)
    padded = pad(tensor, [0, 0] * (tensor.ndim - 1) + [0, missing])
    rows = _join(padded).view(len(sizes), max(sizes), *tensor.shape[1:])
    return torch.cat([rows[rank, :size] for rank, size in enumerate(sizes)])
