"""ResNets for 32x32 images, the backbones of the CIFAR-LT papers."""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from longtail.errors import InputError
from longtail.models.backbone import CIFAR_MEAN, CIFAR_STD, Backbone


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, width - width_in

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.extra:
            # Option A: every second pixel, and zeros for the new channels, half on either side.
            before = self.extra // 2
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0,) * 4 + (before, self.extra - before)
            )
        return F.relu(y + x, inplace=True)


class CifarResNet(Backbone):
    """ResNet of 6n + 2 layers for small images, with parameter-free shortcuts.

    Section 4.2 of He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    arXiv 1512.03385 (option A shortcuts); convolutions use He's normal initialisation.
    Identical to the paper.

    Args:
        depth: number of layers, 6n + 2.
        widths: channels of the three stages; the last one is the number of features.

    Raises:
        ValueError: when `depth` is not 6n + 2.

    Examples:
        >>> sum(p.numel() for p in CifarResNet(32).parameters())
        463504
    """

    def __init__(self, depth: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"depth of CifarResNet must be 6n + 2 (8, 14, 20, ...), got {depth}")
        super().__init__(widths[-1], CIFAR_MEAN, CIFAR_STD)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        width_in = widths[0]
        for stage, width in enumerate(widths):
            for i in range((depth - 2) // 6):
                blocks.append(_Block(width_in, width, stride=2 if stage and i == 0 else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.apply(_start)

    def for_inference(self) -> Self:
        """A frozen copy with every batch norm folded into its convolution."""
        twin = super().for_inference()
        for module in twin.modules():
            for conv, norm in (("stem", "bn"), ("conv1", "bn1"), ("conv2", "bn2")):
                if hasattr(module, conv):
                    folded = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                    setattr(module, conv, folded.to(memory_format=torch.channels_last))
                    setattr(module, norm, nn.Identity())
        return twin

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        x = F.relu(self.bn(self.stem(images)), inplace=True)
        features: Tensor = self.blocks(x).mean((2, 3))
        return features


class BranchedResNet(CifarResNet):
    """CIFAR ResNet with two last blocks in parallel, whose features are concatenated.

    The ResNet-32 of Zhou et al., BBN, CVPR 2020, arXiv 1912.02413, on which Hong et al., CVPR 2021
    (LADE), report CIFAR-100. Twice as many features; otherwise as `CifarResNet`.

    Args:
        depth: number of layers, 6n + 2.
    """

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        width = self.num_features
        self.num_features = 2 * width
        self.twin = _Block(width, width, stride=1).apply(_start)

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        x = F.relu(self.bn(self.stem(images)), inplace=True)
        x = self.blocks[:-1](x)
        return torch.cat([self.blocks[-1](x), self.twin(x)], dim=1).mean((2, 3))


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


def resnet20() -> CifarResNet:
    """CIFAR ResNet-20, 0.27 M parameters, 64 features."""
    return CifarResNet(20)


def resnet32() -> CifarResNet:
    """CIFAR ResNet-32, 0.46 M parameters, 64 features: the backbone of the CIFAR-LT papers."""
    return CifarResNet(32)


def resnet32_branched() -> BranchedResNet:
    """CIFAR ResNet-32 with two last blocks, 0.54 M parameters, 128 features: LADE's."""
    return BranchedResNet(32)


def resnet44() -> CifarResNet:
    """CIFAR ResNet-44, 0.66 M parameters, 64 features."""
    return CifarResNet(44)


def resnet56() -> CifarResNet:
    """CIFAR ResNet-56, 0.85 M parameters, 64 features: the teacher of GML on CIFAR."""
    return CifarResNet(56)


def resnet110() -> CifarResNet:
    """CIFAR ResNet-110, 1.73 M parameters, 64 features."""
    return CifarResNet(110)
