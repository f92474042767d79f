"""Logits of images, computed by the feature engine."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from longtail.data import CentreCrop, Split
from longtail.data.images import resize_crop, to_rgb
from longtail.errors import InputError
from longtail.features import extract, fastest
from longtail.models import Backbone

AnyImage = str | Path | Image.Image | NDArray[np.uint8]
ROWS = 4096  # number of features for the head at a time


@torch.no_grad()
def split_logits(
    backbone: Backbone,
    head: nn.Module,
    split: Split,
    crop: CentreCrop,
    device: torch.device,
    threads: int | None = None,
) -> Tensor:
    """Logits (N, C) of a split in float32, on the CPU; each image is seen once.

    Args:
        backbone: images to features.
        head: features to logits.
        split: the images.
        crop: how an image file is cropped.
        device: where the backbone computes.
        threads: threads that read images; see `longtail.features.outputs`.

    Raises:
        UnreadableImagesError: names every image that cannot be read.
    """
    features = split_features(backbone, split, crop, device, threads)
    head = copy.deepcopy(head).cpu().float().eval()  # which may be in float64
    return torch.cat([head(rows).float() for rows in torch.split(features, ROWS)])


def split_features(
    backbone: Backbone,
    split: Split,
    crop: CentreCrop,
    device: torch.device,
    threads: int | None = None,
) -> Tensor:
    """Features (N, D) of a split in float32, on the CPU; arguments as for `split_logits`."""
    network = fastest(backbone, crop.size, len(split), device, "32-true")
    return torch.from_numpy(extract(network, split, crop, threads=threads))


def split_of(images: AnyImage | Sequence[AnyImage], crop: CentreCrop) -> Split:
    """Unlabelled images as a split: files by path, others in memory.

    Args:
        images: paths, or PIL images and uint8 arrays (height, width, 3) or (height, width); one or
            many, but not files together with others.
        crop: how an image is cropped.

    Raises:
        InputError: for an image of another type or shape, a mixture, or no image.
    """
    many = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        many = list(images)
    if not many:
        raise InputError("images must hold at least one image, got none")
    index, labels = torch.arange(len(many)), torch.zeros(len(many), dtype=torch.int64)
    if all(isinstance(image, str | Path) for image in many):
        return Split(labels, index, None, tuple(map(str, many)))
    cropped = [_cropped(image, crop, number) for number, image in enumerate(many)]
    names = tuple(f"image {number}" for number in range(len(many)))
    return Split(labels, index, torch.stack(cropped), names)


def _cropped(image: AnyImage, crop: CentreCrop, number: int) -> Tensor:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise InputError(
                "images must be arrays (height, width, 3) or (height, width) of uint8, got "
                f"{image.shape} of {image.dtype} at index {number}"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise InputError(
            "images must be all paths, or all PIL images and arrays, got "
            f"{type(image).__name__} at index {number}"
        )
    if 0 in image.size:
        raise InputError(f"images must have pixels, got size {image.size} at index {number}")
    return resize_crop(to_rgb(image), crop.size, crop.margin)
