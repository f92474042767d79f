"""Segmentation networks: a dense backbone, with one feature vector per pixel, and a classifier.

segmentation_models_pytorch is well maintained, but not used here. Its models return logits, while
the methods need the features before their own classifier (linear or cosine) and a momentum copy of
the backbone alone. Its encoders are those for ImageNet, none of which trains in minutes on two CPU
cores. It leaves the normalisation to the caller, while a model here takes unnormalised images. The
two decoders that remain, on timm's feature maps, are in `timm_model.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.models import DenseCosineHead, DenseHead, Encoder
from longtail.precision import full_precision


class DenseBackbone(Encoder):
    """An encoder with a map of features: `encode` and `forward` return (B, D, h, w).

    The map may be smaller than the images, by any factor.
    """


class Segmenter(nn.Module):
    """A dense backbone and a head: the model of a segmentation run.

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
        """Name of the head, for `create_dense_head`."""
        return "cosine" if isinstance(self.head, DenseCosineHead) else "linear"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W), float32, of images (B, 3, H, W), levels 0 to 255."""
        return upsample(self.head(self.backbone(images)), images.shape[-2:])


def upsample(logits: Tensor, size: torch.Size) -> Tensor:
    """Resizes logits (B, C, h, w) bilinearly, in float32 or better."""
    return F.interpolate(full_precision(logits), size=size, mode="bilinear")
