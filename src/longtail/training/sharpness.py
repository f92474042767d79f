"""Sharpness-aware minimisation: gradients at weights that a step uphill has made worse."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longtail.training.graphed import Gradients
from longtail.training.input import TrainingBatch

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric


class SharpnessAware:
    """Gradients of a batch at the weights plus `radius` along their normalised gradient.

    Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021,
    arXiv 2010.01412; two passes over the batch. The second repeats the first with other weights:
    it starts from the same buffers (queues, statistics of batch norms) and random numbers. After
    the step, the buffers are those that the first pass left.

    Args:
        gradients: computes loss and gradients of a batch.
        radius: distance to the weights at which the gradients are taken.
    """

    def __init__(self, gradients: Gradients, radius: float) -> None:
        self.gradients, self.radius = gradients, radius

    @torch.no_grad()
    def __call__(
        self, fabric: "Fabric", model: Any, optimizer: Any, batch: TrainingBatch
    ) -> dict[str, Tensor]:
        """See `longtail.training.graphed.compute_gradients`; the loss is that of the first pass."""
        before = [buffer.clone() for buffer in model.module.buffers()]
        losses = self._pass(fabric, model, optimizer, batch)
        after = [buffer.clone() for buffer in model.module.buffers()]
        moved = [p for p in model.module.parameters() if p.grad is not None]
        weights = [p.clone() for p in moved]
        norm = torch.stack([p.grad.norm() for p in moved]).norm()
        for p in moved:
            p.add_(p.grad * (self.radius / (norm + 1e-12)))
        _restore(model.module.buffers(), before)
        torch.manual_seed(torch.initial_seed())
        self._pass(fabric, model, optimizer, batch)
        _restore(moved, weights)
        _restore(model.module.buffers(), after)
        return losses

    def _pass(self, *arguments: Any) -> dict[str, Tensor]:
        with torch.enable_grad():
            return self.gradients(*arguments)


def _restore(tensors: Any, values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
