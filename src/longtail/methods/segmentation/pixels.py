"""From maps to pixels: the loss over all of them, and a fixed number a class and image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.losses import ClassificationLoss, CrossEntropyLoss, LogitAdjustedLoss
from longtail.masks import IGNORED
from longtail.models import upsample
from longtail.precision import full_precision


def pixel_loss(loss: ClassificationLoss, logits: Tensor, target: Tensor) -> Tensor:
    """A classification loss of the pixels that are not ignored.

    Equals `loss` of the flattened pixels of the logits, once these have the size of the target.
    The cross-entropies, plain and logit-adjusted, are computed on the maps as they lie, three times
    faster on a processor; the others need one row a pixel, and a GPU's host then waits once for
    the number of pixels.

    Args:
        loss: any classification loss.
        logits: (B, C, h, w), brought to the size of the target bilinearly.
        target: (B, H, W) int64, class of each pixel or 255.

    Returns: scalar, nats per pixel; 0 when all pixels are ignored.

    Example:
        >>> from longtail.prior import ClassPrior
        >>> loss, target = CrossEntropyLoss(ClassPrior([9, 1])), torch.tensor([[[0, 255]]])
        >>> pixel_loss(loss, torch.zeros(1, 2, 1, 2), target)
        tensor(0.6931)
    """
    if type(loss) is CrossEntropyLoss or type(loss) is LogitAdjustedLoss:
        logits = full_precision(logits)
        if isinstance(loss, LogitAdjustedLoss):
            # Before it grows: interpolation leaves a constant as it is, and the map is smaller.
            logits = logits + (loss.tau * loss.log_prior).to(logits)[:, None, None]
        grown = upsample(logits, target.shape[-2:])
        total = F.cross_entropy(grown, target, ignore_index=IGNORED, reduction="sum")
        return total / (target != IGNORED).sum().clamp(min=1)
    places = (target.flatten() != IGNORED).nonzero().squeeze(1)
    grown = upsample(logits, target.shape[-2:])
    rows = grown.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])[places]
    if not len(places):
        return rows.sum()
    nats: Tensor = loss(rows, target.flatten()[places])
    return nats


@dataclass(frozen=True)
class SampledPixels:
    """Some pixels of a batch of maps.

    Attributes:
        places: (M,) in the flattened maps (B * h * w).
        labels: (M,) class of each.
        images: (M,) which image of the batch each is from.
    """

    places: Tensor
    labels: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def of(self, maps: Tensor) -> Tensor:
        """Their values (M, D) out of maps (B, D, h, w)."""
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])[self.places]


def sample_pixels(target: Tensor, num_classes: int, per_class: int) -> SampledPixels:
    """Up to a fixed number of pixels of each class in each image, spread over its pixels.

    A class with fewer pixels gives all that it has. Those of a larger one are taken at even steps
    in the order of rows from a random start, so that they do not crowd. Random numbers come from
    torch's global generator, which the loop seeds. A GPU's host waits once for how many there are.

    Args:
        target: (B, h, w) int64, class of each pixel or 255.
        num_classes: C.
        per_class: largest number of pixels of a class from one image.

    Example:
        >>> chosen = sample_pixels(torch.tensor([[[0, 0, 1, 255]]]), num_classes=2, per_class=1)
        >>> chosen.labels.tolist(), chosen.images.tolist()
        ([0, 1], [0, 0])
    """
    batch, area = len(target), target[0].numel()
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
    """Classes (B, H, W) at the size of a smaller map: those of the pixels nearest to its own."""
    if target.shape[-2:] == size:
        return target
    row, column = (
        ((torch.arange(new, device=target.device) + 0.5) * (old / new)).long()
        for old, new in zip(target.shape[-2:], size, strict=True)
    )
    return target[:, row[:, None], column]
