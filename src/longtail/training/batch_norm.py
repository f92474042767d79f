"""Batch norm over the rows of all processes of a run."""

import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from longtail.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def share_batch_norm(method: nn.Module, fabric: "Fabric") -> None:
    """Makes every batch norm compute its statistics over the rows of all processes, in place.

    Raises:
        InputError: for a batch norm that cannot be shared: on the CPU, those of timm that include
            an activation.
    """
    if fabric.world_size == 1:
        return
    if fabric.device.type == "cuda":
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        if "timm" in sys.modules:  # which has batch norms of its own
            convert = sys.modules["timm"].layers.convert_sync_batchnorm
        convert(method)
        return
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                raise InputError(
                    f"devices must be 1 on {fabric.device.type}: {type(module).__name__} of the "
                    "backbone cannot be shared by processes on it"
                )
            module.__class__ = SharedBatchNorm  # parameters, buffers and references stay


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the rows of all processes for any device; torch's own is for CUDA only.

    First the mean, then the mean square about it, each summed over the processes with gradients.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any shape, since the class of an already checked module was changed."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, ...) by the statistics of all processes' rows."""
        if not self.training:
            return super().forward(input)
        by_channel = (1, -1, *[1] * (input.ndim - 2))
        dims = [d for d in range(input.ndim) if d != 1]
        x = input if input.dtype == torch.float64 else input.float()
        rows = x.new_tensor([x.numel() / x.shape[1]])
        total: Tensor = _SumOfAll.apply(torch.cat([x.sum(dims), rows]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = x - mean.view(by_channel)
        squares: Tensor = _SumOfAll.apply(centred.square().sum(dims))
        variance = squares / count
        self._remember(mean.detach(), squares.detach() / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        out = centred * scale.view(by_channel)
        if self.affine:
            out = out + self.bias.view(by_channel)
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _SumOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
