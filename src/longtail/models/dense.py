"""Dense prediction: networks that give every pixel a feature vector, and what stands on them.

Ours rather than segmentation_models_pytorch, although that package is well kept: its models end in
logits, where the methods need the features of pixels before a classifier of their own (linear or
cosine) and let a momentum encoder copy just that part; its networks start at encoders for
ImageNet, with nothing that two processor cores train in minutes; and it leaves the normalisation
to the caller, where a model here takes pictures as they are. What remains are two decoders on
timm's feature maps (`dense_timm.py`, `decoders.py`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone
from longtail.precision import full_precision


class DenseBackbone(Backbone):
    """A backbone whose `encode` and `forward` give a map of features (B, D, h, w).

    The map may be smaller than the images, by any factor.
    """


class DenseLinearHead(nn.Conv2d):
    """Linear classifier of every pixel."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes, 1)
        nn.init.kaiming_normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class DenseCosineHead(nn.Module):
    """Cosine classifier of every pixel: logits = scale * cos(features, weight of the class).

    Args:
        num_features: width of the features, D.
        num_classes: number of classes, C.
        scale: inverse of the temperature of the logits.
    """

    def __init__(self, num_features: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, num_features)))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C, h, w) of features (B, D, h, w)."""
        # The norm comes in after the product: a map of unit features would double the memory.
        weight = self.scale * F.normalize(self.weight, dim=1)[:, :, None, None]
        inverse: Tensor = _InverseNorm.apply(features)
        return F.conv2d(features, weight) * inverse


class _InverseNorm(torch.autograd.Function):
    """One over the norm of every pixel's features, (B, 1, h, w), in float32 or better.

    Its gradient by hand is one product of the size of the features, by autograd it is four.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        wide = torch.promote_types(features.dtype, torch.float32)
        squares = features.square().sum(1, keepdim=True, dtype=wide)
        inverse = squares.clamp_(min=1e-24).rsqrt_()
        ctx.save_for_backward(features, inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        features, inverse = ctx.saved_tensors
        slope: Tensor = features * (-grad * inverse**3).to(features.dtype)
        return slope


DenseHead = DenseLinearHead | DenseCosineHead
DENSE_HEADS: dict[str, type[DenseHead]] = {"linear": DenseLinearHead, "cosine": DenseCosineHead}


def create_dense_head(name: str, num_features: int, num_classes: int) -> DenseHead:
    """Makes a classifier of pixels, `linear` or `cosine`.

    Raises:
        ValueError: when the name is another.
    """
    if name not in DENSE_HEADS:
        raise InputError(f"head must be one of {sorted(DENSE_HEADS)}, got {name!r}")
    return DENSE_HEADS[name](num_features, num_classes)


class Segmenter(nn.Module):
    """A dense backbone and a head: what a trained segmentation run leaves for prediction.

    Args:
        backbone: images to maps of features.
        head: maps of features to maps of logits.
    """

    def __init__(self, backbone: DenseBackbone, head: DenseHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def head_name(self) -> str:
        """The name that `create_dense_head` makes this head by."""
        return "cosine" if isinstance(self.head, DenseCosineHead) else "linear"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W), float32, of images (B, 3, H, W), levels 0 to 255."""
        return upsample(self.head(self.backbone(images)), images.shape[-2:])


def upsample(logits: Tensor, size: torch.Size) -> Tensor:
    """Brings logits (B, C, h, w) to the size of the images, bilinearly, in float32 or better."""
    return F.interpolate(full_precision(logits), size=size, mode="bilinear")
