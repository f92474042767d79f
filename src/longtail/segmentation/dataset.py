"""Data sets of images and masks, and their loading."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.data.dataset import Split, TrainingData
from longtail.data.problems import counted
from longtail.data.samplers import POWERS, Sampling
from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.segmentation.coding import settle_coding
from longtail.segmentation.counts import BadPairsError, by_class, count_pairs
from longtail.segmentation.layouts import LAYOUTS, Layout, PixelDataConfig, find_layout
from longtail.segmentation.masks import Coding
from longtail.segmentation.pairs import PairReader, scaled_size

IN_MEMORY_BYTES = 2**31
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PixelSplit(Split):
    """One split of a segmentation data set.

    An image and its mask are one uint8 tensor with four planes: red, green, blue and class (255
    where ignored), so that whatever moves the pixels also moves their classes.

    Args:
        labels: (N,) int64, the rarest class in each image, which the samplers use.
        index: (N,) int64, index of each image in its source.
        images: (N, 4, H, W) uint8 if held in memory, else None.
        paths: file of each image.
        masks: file of each mask.
        pixels: (N, C) int64, pixels of each class in each image.
    """

    masks: tuple[str, ...]
    pixels: Tensor

    @property
    def files(self) -> list[tuple[str, ...]]:
        """Files of each image: its own and that of its mask."""
        return list(zip(self.paths, self.masks, strict=True))

    @property
    def mask_of(self) -> dict[str, str]:
        """Mask file of each image file."""
        return dict(zip(self.paths, self.masks, strict=True))


@dataclass(frozen=True, eq=False)
class PixelDataset(TrainingData[PixelSplit]):
    """Images in which every pixel has a class or is ignored.

    Args:
        name: name in tables and reports.
        class_names: name of each class, in the order of the class indices.
        train: training split; every class has at least one pixel in it.
        val: validation split, if there is one.
        test: test split, if there is one.
        coding: meaning of the values in the mask files.
        image_size: shorter side that images are resized to; None: not resized.
    """

    coding: Coding
    image_size: int | None

    @cached_property
    def prior(self) -> ClassPrior:
        """Pixels of each class in the training split."""
        return ClassPrior(self.train.pixels.sum(0))

    @cached_property
    def image_prior(self) -> ClassPrior:
        """Training images with each class: the prior of a fixed number per class and image."""
        return ClassPrior((self.train.pixels > 0).sum(0))

    def priors_as_drawn(self, sampler: Sampling) -> tuple[ClassPrior, ClassPrior]:
        """Pixel prior and image prior of the images that a sampler draws.

        The samplers use the rarest class in an image. Images with rare classes are drawn more
        often, and bring pixels of all their classes.
        """
        if sampler in ("sequential", "shuffle"):
            return self.prior, self.image_prior
        images = torch.bincount(self.train.labels).double()
        drawn = (images ** (POWERS[sampler] - 1))[self.train.labels]  # how often, up to a factor
        pixels = self.train.pixels.double()
        return ClassPrior(drawn @ pixels), ClassPrior(drawn @ (pixels > 0).double())

    def reader(self, split: PixelSplit) -> PairReader:
        """Reader of the image files of one of its splits, with their masks."""
        return PairReader(split.mask_of, self.coding, self.image_size)


def load_pixels(config: PixelDataConfig) -> PixelDataset:
    """Finds and checks the images and masks of a source, and counts their pixels.

    The images are held in memory if all have the same size after resizing and take at most 2 GiB.

    Raises:
        BadPairsError: names every image and mask that cannot be used, and why.
        InputError: when the source is unknown, or a class has no training pixel.
    """
    layout, pixels, sizes = read_pixels(config)
    _check_classes(layout, pixels)
    splits = _splits(layout, pixels, sizes, config.image_size)
    assert layout.coding is not None
    return PixelDataset(
        name=layout.name,
        class_names=layout.class_names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        coding=layout.coding,
        image_size=config.image_size,
    )


def read_pixels(config: PixelDataConfig) -> tuple[Layout, Counts, Counts]:
    """The layout of a source with its coding, (N, C) pixels of each class, and (N, 2) sizes.

    Raises:
        BadPairsError: names every image and mask that cannot be used, and why.
        InputError: when the source is unknown, or the mask values do not determine the classes.
    """
    layout = find_layout(config)
    if not layout.splits.get("train"):
        raise InputError(f"{layout.root} has no training image in the layout {layout.name}")
    pairs = [pair for split in layout.splits.values() for pair in split]
    counts = count_pairs(layout)
    if layout.coding is None:
        seen = np.flatnonzero(counts.values.any(0)).tolist()
        if counts.failures and not (seen and layout.class_names):
            raise BadPairsError(counts.failures, len(pairs))
        if counts.lossy.any() and not config.values:
            jpeg = [pairs[row][1] for row in np.flatnonzero(counts.lossy).tolist()]
            raise InputError(
                f"{layout.root} cannot be used: {counted('masks that are JPEG', jpeg)}. JPEG "
                "changes the values at edges: save them as PNG, or give the values of two classes, "
                "as in --data.values 0 255"
            )
        coding, names = settle_coding(layout, config, seen)
        layout = replace(layout, coding=coding, class_names=names)
    assert layout.coding is not None
    if len(layout.class_names) < 2:
        only = ", ".join(layout.class_names)
        raise InputError(
            f"{layout.root} cannot be used: all pixels are of one class, {only!r}; two or more "
            "are needed"
        )
    pixels = by_class(counts, pairs, layout.coding, len(layout.class_names))
    return layout, pixels, counts.sizes


def _check_classes(layout: Layout, pixels: Counts) -> None:
    """Rejects classes without a training pixel, which have no prior."""
    names = layout.class_names
    if absent := absent_classes(layout, pixels):
        own = "; classes of your own are named with --data.classes" * (layout.name in LAYOUTS)
        raise InputError(
            f"every class must have a pixel in the training split of {layout.root}, "
            f"{len(absent)} of {len(names)} have none: {', '.join(absent[:10])}{own}"
        )


def absent_classes(layout: Layout, pixels: Counts) -> list[str]:
    """Classes without a pixel in the training split."""
    trained = pixels[: len(layout.splits["train"])].sum(0)
    return [n for n, count in zip(layout.class_names, trained, strict=True) if not count]


def _splits(
    layout: Layout, counts: Counts, shapes: Counts, shorter: int | None
) -> dict[str, PixelSplit]:
    assert layout.coding is not None
    total = counts[: len(layout.splits["train"])].sum(0)
    sizes = {scaled_size((int(w), int(h)), shorter) for w, h in np.unique(shapes, axis=0)}
    (width, height) = next(iter(sizes))
    fits = len(sizes) == 1 and len(shapes) * 4 * width * height <= IN_MEMORY_BYTES
    splits = {}
    begin = 0
    for name, pairs in layout.splits.items():
        rows = slice(begin, begin + len(pairs))
        begin += len(pairs)
        if not pairs:
            continue
        reader = PairReader(dict(pairs), layout.coding, shorter)
        pixels = counts[rows]
        splits[name] = PixelSplit(
            labels=torch.from_numpy(np.where(pixels > 0, total, total.max() + 1).argmin(1)),
            index=torch.arange(rows.start, rows.stop),
            images=reader.read_all((width, height)) if fits else None,
            paths=tuple(image for image, _ in pairs),
            masks=tuple(mask for _, mask in pairs),
            pixels=torch.from_numpy(pixels),
        )
    return splits
