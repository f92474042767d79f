"""From the files of a pair to one tensor of four planes: red, green, blue, class."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtail.data.images import RESAMPLE, to_rgb, to_tensor
from longtail.data.segmentation.counts import about, for_each_pair
from longtail.data.segmentation.layout import Pair
from longtail.data.segmentation.masks import ColourCoding, IndexCoding
from longtail.masks import IGNORED

Size = tuple[int, int]  # width, height


def scaled_size(size: Size, shorter: int | None) -> Size:
    """Width and height once the shorter side has `shorter` pixels.

    Example:
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
        masks: file of each image's mask, by the file of the image.
        coding: of the masks.
        shorter: side that they are brought to; None leaves them as they are.
    """

    masks: dict[str, str]
    coding: IndexCoding | ColourCoding
    shorter: int | None

    def __call__(self, path: str) -> Tensor:
        """The four planes (4, H, W) uint8 of an image file."""
        rgb, mask = open_pair((path, self.masks[path]), self.coding)
        size = scaled_size(rgb.size, self.shorter)
        if size != rgb.size:
            rgb, mask = rgb.resize(size, RESAMPLE), mask.resize(size, Image.Resampling.NEAREST)
        return stack(rgb, mask)

    def read_all(self, size: Size) -> Tensor:
        """All of them, which are of one size in the end, (N, 4, H, W) uint8.

        Raises:
            BadPairsError: names every pair that cannot be read.
        """
        pairs = list(self.masks.items())
        images = torch.empty(len(pairs), 4, size[1], size[0], dtype=torch.uint8)

        def read(place: int) -> None:
            images[place] = self(pairs[place][0])

        for_each_pair(pairs, read)
        return images


@dataclass(frozen=True)
class RandomPairCrops:
    """Random splits of images in files, at a random scale, for training; run by worker processes.

    The image is smoothed when it shrinks, which the crops on the device leave out. What lies
    outside of it is black and ignored. Draws from torch's global generator, which the loader
    seeds for every image.

    Args:
        masks: file of each image's mask, by the file of the image.
        coding: of the masks.
        shorter: side that whole images are brought to before; None leaves them as they are.
        size: height and width of the result.
        scale: least and largest factor of the image's size.
    """

    masks: dict[str, str]
    coding: IndexCoding | ColourCoding
    shorter: int | None
    size: tuple[int, int]
    scale: tuple[float, float]

    def __call__(self, path: str) -> Tensor:
        """The four planes (4, *size) uint8 of an image file's crop."""
        rgb, mask = open_pair((path, self.masks[path]), self.coding)
        low, high = map(math.log, self.scale)
        place = torch.rand(3).tolist()
        factor = math.exp(low + place[0] * (high - low))
        factor *= scaled_size(rgb.size, self.shorter)[0] / rgb.size[0]
        height, width = (side / factor for side in self.size)  # of the crop, in the file's pixels
        left = place[1] * max(rgb.width - width, 0)
        top = place[2] * max(rgb.height - height, 0)
        right, low_end = min(left + width, rgb.width), min(top + height, rgb.height)
        box = (left, top, right, low_end)
        inner = max(1, round((right - left) * factor)), max(1, round((low_end - top) * factor))
        planes = stack(
            rgb.resize(inner, RESAMPLE, box), mask.resize(inner, Image.Resampling.NEAREST, box)
        )
        return pad_to(planes, self.size)


def open_pair(pair: Pair, coding: IndexCoding | ColourCoding) -> tuple[Image.Image, Image.Image]:
    """Image in RGB and mask as classes, both whole."""
    with about(pair[0]), Image.open(pair[0]) as picture:
        rgb = to_rgb(picture)
    with about(pair[1]), Image.open(pair[1]) as picture:
        return rgb, Image.fromarray(coding.decode(picture))


def stack(rgb: Image.Image, mask: Image.Image) -> Tensor:
    """The four planes (4, H, W) uint8."""
    return torch.cat([to_tensor(rgb), torch.from_numpy(np.array(mask))[None]])


def pad_to(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """The planes with black and ignored pixels to the right and below, (4, *size)."""
    height, width = planes.shape[1:]
    whole = planes.new_zeros(4, *size)
    whole[3] = IGNORED
    whole[:, : min(height, size[0]), : min(width, size[1])] = planes[:, : size[0], : size[1]]
    return whole
