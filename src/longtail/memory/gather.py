"""The keys of all processes, in rank order, so that every process ends with the same queue."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad


@torch.no_grad()
def gather_keys(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Joins the rows that all processes hold, in rank order; without processes, returns its input.

    The processes may hold different numbers of rows: they tell each other how many first, which is
    the one thing that waits for the host. No gradient flows.

    Args:
        *tensors: (rows, ...) each, the same number of rows in all of them, say features, labels
            and index of the batch.

    Returns: (rows of all processes, ...) each, the same on every process.

    Example:
        >>> gather_keys(torch.tensor([1, 2]), torch.tensor([3, 4]))
        (tensor([1, 2]), tensor([3, 4]))
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensors
    rows = torch.tensor([len(tensors[0])], device=tensors[0].device)
    sizes = torch.cat(_all(rows)).tolist()
    return tuple(_join(tensor, sizes) for tensor in tensors)


def _join(tensor: Tensor, sizes: list[int]) -> Tensor:
    missing = max(sizes) - len(tensor)
    padded = pad(tensor.detach(), [0, 0] * (tensor.ndim - 1) + [0, missing])
    return torch.cat([rows[:size] for rows, size in zip(_all(padded), sizes, strict=True)])


def _all(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts
