"""Reading an image and its mask as one tensor with four planes: red, green, blue, class."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtail.data.images import RESAMPLE, to_rgb, to_tensor
from longtail.segmentation.counts import about, for_each_pair
from longtail.segmentation.masks import IGNORED, Coding

Size = tuple[int, int]  # width, height


def scaled_size(size: Size, shorter: int | None) -> Size:
    """Width and height after resizing the shorter side to `shorter` pixels.

    Examples:
        >>> scaled_size((960, 720), 180)
        (240, 180)
    """
    if shorter is None:
        return size
    factor = shorter / min(size)
    return round(size[0] * factor), round(size[1] * factor)


@dataclass(frozen=True)
class PairReader:
    """Reads whole images with their masks.

    Args:
        masks: mask file of each image file.
        coding: meaning of the mask values.
        shorter: length to which the shorter side is resized; None: not resized.
    """

    masks: dict[str, str]
    coding: Coding
    shorter: int | None

    def __call__(self, path: str) -> Tensor:
        """The four planes (4, H, W) uint8 of an image file."""
        rgb, mask = self.open(path)
        size = scaled_size(rgb.size, self.shorter)
        if size != rgb.size:
            rgb, mask = rgb.resize(size, RESAMPLE), mask.resize(size, Image.Resampling.NEAREST)
        return stack(rgb, mask)

    def open(self, path: str) -> tuple[Image.Image, Image.Image]:
        """Opens an image file in RGB, and its mask as class indices."""
        with about(path), Image.open(path) as picture:
            rgb = to_rgb(picture)
        with about(mask := self.masks[path]), Image.open(mask) as picture:
            return rgb, Image.fromarray(self.coding.decode(picture))

    def read_all(self, size: Size) -> Tensor:
        """Reads all of them, (N, 4, H, W) uint8; they must have the same size after resizing.

        Raises:
            BadPairsError: names every image and mask that cannot be read.
        """
        pairs = list(self.masks.items())
        images = torch.empty(len(pairs), 4, size[1], size[0], dtype=torch.uint8)

        def read(number: int) -> None:
            images[number] = self(pairs[number][0])

        for_each_pair(pairs, read)
        return images


@dataclass(frozen=True)
class RandomPairCrops:
    """Random crops of image files at a random scale, for training; run by worker processes.

    An image that shrinks is antialiased, unlike in `PairedView`. Pixels outside of the image are
    black and ignored. Random numbers come from torch's global generator, which the loader seeds
    for every image.

    Args:
        reader: reader of the whole images, which may resize them first.
        size: height and width of the crop.
        scale: smallest and largest scale factor.
    """

    reader: PairReader
    size: tuple[int, int]
    scale: tuple[float, float]

    def __call__(self, path: str) -> Tensor:
        """The four planes (4, *size) uint8 of an image file's crop."""
        rgb, mask = self.reader.open(path)
        low, high = map(math.log, self.scale)
        draws = torch.rand(3).tolist()
        factor = math.exp(low + draws[0] * (high - low))
        factor *= scaled_size(rgb.size, self.reader.shorter)[0] / rgb.size[0]
        height, width = (side / factor for side in self.size)  # of the crop, in the file's pixels
        left = draws[1] * max(rgb.width - width, 0)
        top = draws[2] * max(rgb.height - height, 0)
        right, low_end = min(left + width, rgb.width), min(top + height, rgb.height)
        box = (left, top, right, low_end)
        inner = max(1, round((right - left) * factor)), max(1, round((low_end - top) * factor))
        planes = stack(
            rgb.resize(inner, RESAMPLE, box), mask.resize(inner, Image.Resampling.NEAREST, box)
        )
        return pad_to(planes, self.size)


def stack(rgb: Image.Image, mask: Image.Image) -> Tensor:
    """The four planes (4, H, W) uint8."""
    return torch.cat([to_tensor(rgb), torch.from_numpy(np.array(mask))[None]])


def pad_to(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads the planes on the right and below with black, ignored pixels, (4, *size)."""
    height, width = planes.shape[1:]
    whole = planes.new_zeros(4, *size)
    whole[3] = IGNORED
    whole[:, : min(height, size[0]), : min(width, size[1])] = planes[:, : size[0], : size[1]]
    return whole
