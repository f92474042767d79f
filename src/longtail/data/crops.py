"""Crops of large image files, made by worker processes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.data.images import RESAMPLE, open_image, read_image, to_rgb, to_tensor, upright_size

Box = tuple[float, float, float, float]  # left, top, right, bottom
Range = tuple[float, float]  # minimum and maximum


@dataclass(frozen=True)
class CentreCrop:
    """Centre crop for evaluation: by default 224 pixels of a shorter side of 256.

    Args:
        size: side of the crop in pixels.
        margin: shorter side of the resized image over `size`.
    """

    size: int
    margin: float = 256 / 224

    def __call__(self, path: str) -> Tensor:
        """Reads a file as (3, size, size) uint8."""
        return read_image(path, self.size, self.margin)


@dataclass(frozen=True)
class RandomCrops:
    """Random resized crops for training, one per view.

    Draws each crop like torchvision's `RandomResizedCrop`, with torch's global generator, which the
    loader seeds for every image. Unlike in torchvision, a file is decoded once for all views, a
    JPEG file only as large as the smallest crop needs, and the borders of a crop are not rounded to
    whole pixels.

    Args:
        size: side of the crops in pixels.
        scales: for each view the minimum and maximum fraction of the area; None is the centre crop
            of `CentreCrop`.
        ratio: minimum and maximum aspect ratio, width over height.
    """

    size: int
    scales: tuple[Range | None, ...] = ((0.08, 1.0),)
    ratio: Range = (3 / 4, 4 / 3)

    def __call__(self, path: str) -> Tensor:
        """Reads a file as (3, size, size) uint8, or (views, 3, size, size) for several views."""
        with open_image(path) as image:
            width, height = upright_size(image)
            boxes = [self._box(width, height, scale) for scale in self.scales]
            side = min(min(right - left, low - top) for left, top, right, low in boxes)
            rgb = to_rgb(image, side / self.size)
        # The decoded image may be 2, 4 or 8 times smaller than the boxes were drawn for.
        across, down = rgb.width / width, rgb.height / height
        views = []
        for left, top, right, low in boxes:
            box = (left * across, top * down, right * across, low * down)
            views.append(to_tensor(rgb.resize((self.size, self.size), RESAMPLE, box)))
        return views[0] if len(views) == 1 else torch.stack(views)

    def _box(self, width: int, height: int, scale: Range | None) -> Box:
        if scale is None:
            side = min(width, height) / CentreCrop.margin
            return _middle(width, height, side, side)
        for _ in range(10):
            area = width * height * _uniform(*scale)
            shape = math.exp(_uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, tall = math.sqrt(area * shape), math.sqrt(area / shape)
            if wide <= width and tall <= height:
                left, top = _uniform(0, width - wide), _uniform(0, height - tall)
                return left, top, left + wide, top + tall
        # No valid box in ten draws: the largest centred box with a valid aspect ratio.
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])
        return _middle(width, height, min(width, height * shape), min(height, width / shape))


def _middle(width: float, height: float, wide: float, tall: float) -> Box:
    left, top = (width - wide) / 2, (height - tall) / 2
    return left, top, left + wide, top + tall


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
