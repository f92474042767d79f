"""A network small enough for 8x8 images and two processor cores."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from longtail.models.backbone import Backbone


class SmallNet(Backbone):
    """Four 3x3 convolutions with batch norm and ReLU, one downsampling, mean over the pixels.

    Args:
        width: channels of the first half; the second half has twice as many, which is the number
            of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__(2 * width, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        widths = (3, width, width, 2 * width, 2 * width)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2 if i == 2 else 1, padding=1, bias=False)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        return x.mean((2, 3))


def smallnet() -> SmallNet:
    """Small network for images of 8 to 16 pixels, 0.07 M parameters, 64 features."""
    return SmallNet(32)


def smallnet_wide() -> SmallNet:
    """Small network of twice the width, 0.26 M parameters, 128 features: teacher of `smallnet`."""
    return SmallNet(64)
