"""The base class of backbones, which normalise images and turn them into features."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Encoder(nn.Module, ABC):
    """Turns a batch of images into features.

    It normalises the images itself, so that training, prediction and an exported file agree.

    Args:
        num_features: width of the features, D.
        mean: mean of each channel, in units of the range [0, 1].
        std: standard deviation of each channel, in the same units.

    Attributes:
        frozen: whether it stays in evaluation mode when `train` is called.
        image_size: side in pixels at which its pretrained weights were trained; None: unknown.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_features: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_features = num_features
        self.frozen = False
        self.image_size: int | None = None
        std_tensor = torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std_tensor), persistent=False)
        shift = -torch.tensor(mean).view(1, 3, 1, 1) / std_tensor
        self.register_buffer("shift", shift, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D, ...) of normalised images (B, 3, H, W)."""

    def for_inference(self) -> Self:
        """A copy in evaluation mode and without gradients, as fast as the architecture allows."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: (B, 3, H, W), levels 0 to 255, uint8 or any floating type.

        Returns: (B, D, ...) features.
        """
        pictures = images.contiguous(memory_format=torch.channels_last)
        return self.encode(torch.addcmul(self.shift, pictures.to(self.scale.dtype), self.scale))


class Backbone(Encoder):
    """An encoder with one feature vector per image: `encode` and `forward` return (B, D)."""
