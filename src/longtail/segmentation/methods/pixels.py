"""From maps to pixels: a loss over all of them, and a fixed number per class and image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.losses import ClassificationLoss, CrossEntropyLoss, LogitAdjustedLoss
from longtail.memory import gather_with_grad
from longtail.precision import full_precision
from longtail.segmentation.masks import IGNORED
from longtail.segmentation.model import upsample
from longtail.targets import check_indices, check_labels

ON_MAPS = (CrossEntropyLoss, LogitAdjustedLoss)  # losses that need no row per pixel


def pixel_loss(loss: ClassificationLoss, logits: Tensor, target: Tensor) -> Tensor:
    """A classification loss over the pixels that are not ignored.

    Equals `loss` of the flattened pixels after resizing the logits to the target. With several
    processes it is the loss of the global batch on each of them. The cross-entropies, plain and
    logit-adjusted, are computed directly on the maps, three times faster on a CPU, and exchange two
    numbers. Other losses need one row per pixel, and the logits of all processes; a GPU's host then
    waits once for the number of pixels.

    Args:
        loss: any classification loss.
        logits: (B, C, h, w), resized to the target bilinearly.
        target: (B, H, W), of any integer type, class of each pixel or 255.

    Returns: scalar, nats per pixel; 0 when all pixels are ignored.

    Raises: ValueError: when a target is not a class index; see `longtail.losses`.

    Examples:
        >>> from longtail.prior import ClassPrior
        >>> loss, target = CrossEntropyLoss(ClassPrior([9, 1])), torch.tensor([[[0, 255]]])
        >>> pixel_loss(loss, torch.zeros(1, 2, 1, 2), target)
        tensor(0.6931)
    """
    if type(loss) in ON_MAPS:
        target = check_indices("pixel_loss", "target", target)
        classes = target.masked_fill(target == IGNORED, 0)
        check_labels("pixel_loss", "target", classes, logits.shape[1], ignore=False)
        logits = full_precision(logits)
        if isinstance(loss, LogitAdjustedLoss):
            # Before resizing, since interpolation does not change a constant, and the map is
            # smaller.
            logits = logits + (loss.tau * loss.log_prior).to(logits)[:, None, None]
        grown = upsample(logits, target.shape[-2:])
        total = F.cross_entropy(
            grown, target, ignore_index=IGNORED, reduction="sum", label_smoothing=loss.smoothing
        )
        count = (target != IGNORED).sum()
        return _over_all(total) / _over_all(count).clamp(min=1)
    grown = gather_with_grad(upsample(logits, target.shape[-2:]))
    target = gather_with_grad(target).flatten()
    counted = (target != IGNORED).nonzero().squeeze(1)
    rows = grown.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])[counted]
    if not len(counted):
        return rows.sum()
    nats: Tensor = loss(rows, target[counted])
    return nats


def _over_all(scalar: Tensor) -> Tensor:
    """Sum of a scalar over the processes."""
    return gather_with_grad(scalar[None]).sum()


def unused(*modules: nn.Module) -> Tensor:
    """Zero, with a gradient of zero for the parameters of modules that are unused in a step.

    With several processes, a parameter must be used in every step or in none.
    """
    used = [p.sum() for module in modules for p in module.parameters() if p.requires_grad]
    return 0.0 * torch.stack(used).sum()


@dataclass(frozen=True)
class SampledPixels:
    """Some pixels of a batch of maps.

    Attributes:
        indices: (M,) index in the flattened maps (B * h * w).
        labels: (M,) class index.
        images: (M,) index of the pixel's image in the batch.
    """

    indices: Tensor
    labels: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def of(self, maps: Tensor) -> Tensor:
        """Values (M, D) of the pixels in maps (B, D, h, w)."""
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])[self.indices]


def sample_pixels(target: Tensor, num_classes: int, per_class: int) -> SampledPixels:
    """Up to a fixed number of pixels of each class in each image, spread over its pixels.

    All pixels of a smaller class are chosen. Those of a larger one are chosen at even steps, row by
    row from a random start, so that they do not cluster. Random numbers come from torch's global
    generator, which the loop seeds. A GPU's host waits once for the number of pixels.

    Args:
        target: (B, h, w) int64, class of each pixel or 255.
        num_classes: C.
        per_class: largest number of pixels of a class from one image.

    Examples:
        >>> chosen = sample_pixels(torch.tensor([[[0, 0, 1, 255]]]), num_classes=2, per_class=1)
        >>> chosen.labels.tolist(), chosen.images.tolist()
        ([0, 1], [0, 0])
    """
    batch, area = len(target), target.shape[1:].numel()
    flat = target.flatten(1).clamp(max=num_classes)  # ignored pixels come last
    order = flat.to(torch.uint8).argsort(dim=1, stable=True)
    counts = torch.zeros(batch, num_classes + 1, dtype=torch.int64, device=target.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    begin, counts = (counts.cumsum(1) - counts)[:, :-1, None], counts[:, :-1, None]
    slot = torch.arange(per_class, device=target.device)
    start = torch.rand(batch, num_classes, 1, device=target.device)
    spread = ((slot + start) * (counts / per_class)).long()
    rank = torch.where(counts > per_class, spread.minimum(counts - 1), slot)
    image, label, taken = (rank < counts).nonzero(as_tuple=True)  # (B, C, per_class)
    first = begin[image, label, 0] + rank[image, label, taken]
    return SampledPixels(image * area + order[image, first], label, image)


def shrink(target: Tensor, size: torch.Size) -> Tensor:
    """Classes (B, H, W) resized to a smaller map, by nearest neighbour."""
    if target.shape[-2:] == size:
        return target
    row, column = (
        ((torch.arange(new, device=target.device) + 0.5) * (old / new)).long()
        for old, new in zip(target.shape[-2:], size, strict=True)
    )
    return target[:, row[:, None], column]
