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

    Each process computes mean and variance of its own rows; the processes combine them, and the
    sums of the gradient, in one exchange each.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any shape, since the class of an already checked module was changed."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, ...) by the statistics of all processes' rows."""
        if not self.training:
            return super().forward(input)
        kind = torch.float64 if input.dtype == torch.float64 else torch.float32
        zeros = torch.zeros(input.shape[1], dtype=kind, device=input.device)
        ones = torch.ones_like(zeros)
        scale, shift = ones, zeros
        if self.affine:
            scale, shift = self.weight.to(kind), self.bias.to(kind)
        own_mean = own_variance = zeros  # of a process without rows
        if input.numel():
            # Its output is not used: this is still the fastest way to the statistics.
            _, own_mean, own_scale = torch.native_batch_norm(
                input.detach(), ones, zeros, None, None, True, 0.0, self.eps
            )
            own_variance = (own_scale.square().reciprocal() - self.eps).clamp(min=0)
        own_rows = input.numel() / input.shape[1]
        mean, variance, rows = _combined(own_mean, own_variance, own_rows)
        self._remember(mean, variance * (rows / (rows - 1)))
        out: Tensor = _Normalised.apply(input, scale, shift, mean, variance, rows, self.eps)
        return out

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


def _combined(mean: Tensor, variance: Tensor, rows: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance over the rows of all processes, and their number."""
    table = mean.new_zeros(dist.get_world_size(), 2 * len(mean) + 1)  # each fills its own row
    table[dist.get_rank()] = torch.cat([mean, variance, mean.new_tensor([rows])])
    dist.all_reduce(table)
    means, variances, counts = table[:, : len(mean)], table[:, len(mean) : -1], table[:, -1:]
    total = counts.sum()
    share = counts / total
    together = (share * means).sum(0)
    spread = share * (variances + (means - together).square())
    return together, spread.sum(0), total


class _Normalised(torch.autograd.Function):
    """scale * (x - mean) / sqrt(variance + eps) + shift, where both are those of all rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        rows: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, mean, variance, rows)
        ctx.eps = eps
        if not x.numel():
            return torch.empty_like(x)
        return torch.batch_norm(x, scale, shift, mean, variance, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, variance, rows = ctx.saved_tensors
        fixed, along, whole = None, torch.zeros_like(mean), torch.zeros_like(mean)
        if x.numel():  # with fixed statistics; the others are the gradients of scale and shift
            fixed, along, whole = torch.ops.aten.native_batch_norm_backward(
                grad, x, scale, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = torch.cat([along, whole])
        dist.all_reduce(sums)
        if fixed is None:
            return torch.zeros_like(x), along, whole, None, None, None, None
        by_scale, by_shift = (sums / rows).chunk(2)
        inverse = torch.rsqrt(variance + ctx.eps)
        slope = scale * inverse.square() * by_scale
        level = scale * inverse * by_shift - slope * mean
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        # slope * x + level: several times as fast as `addcmul` with a value for each channel
        common = torch.batch_norm(x, slope, level, zero, one, False, 0.0, 0.0, False)
        return fixed.sub_(common), along, whole, None, None, None, None
