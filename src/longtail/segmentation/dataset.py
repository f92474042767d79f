"""Data sets of images and masks, and how they are loaded."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from longtail.data.dataset import Split
from longtail.data.samplers import POWERS, Sampling
from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.segmentation.counts import PairCounts, count_pairs
from longtail.segmentation.layouts import Layout, PixelDataConfig, find_layout
from longtail.segmentation.masks import Coding
from longtail.segmentation.pairs import PairReader, scaled_size

IN_MEMORY_BYTES = 2**31


@dataclass(frozen=True, eq=False)
class PixelSplit(Split):
    """One split of a segmentation data set.

    An image and its mask are one uint8 tensor with four planes: red, green, blue and class (255
    where ignored), so that whatever moves the pixels moves their classes along.

    Args:
        labels: (N,) int64, the rarest class in each image, which the samplers use.
        index: (N,) int64, index of each image in its source.
        images: (N, 4, H, W) uint8 when held in memory, else None.
        paths: file of each image.
        masks: file of each mask.
        pixels: (N, C) int64, pixels of each class in each image.
    """

    masks: tuple[str, ...]
    pixels: Tensor

    @property
    def mask_of(self) -> dict[str, str]:
        """Mask file of each image file."""
        return dict(zip(self.paths, self.masks, strict=True))


@dataclass(frozen=True, eq=False)
class PixelDataset:
    """Images whose every pixel has a class, or is ignored.

    Args:
        name: name in tables and reports.
        class_names: name of each class, in the order of the class indices.
        train: training split; every class has at least one pixel in it.
        val: validation split, if there is one.
        test: test split, if there is one.
        coding: meaning of the values in the mask files.
        image_size: shorter side that images are resized to; None: not resized.
    """

    name: str
    class_names: tuple[str, ...]
    train: PixelSplit
    val: PixelSplit | None
    test: PixelSplit | None
    coding: Coding
    image_size: int | None

    @cached_property
    def prior(self) -> ClassPrior:
        """Pixels of each class in the training split."""
        return ClassPrior(self.train.pixels.sum(0))

    @cached_property
    def image_prior(self) -> ClassPrior:
        """Training images that have each class: the prior of a fixed number per class and image."""
        return ClassPrior((self.train.pixels > 0).sum(0))

    def priors_as_drawn(self, sampler: Sampling) -> tuple[ClassPrior, ClassPrior]:
        """Pixel prior and image prior of the images that a sampler draws.

        The samplers use the rarest class in an image. Images with rare classes, drawn more often,
        bring pixels of all their classes along.
        """
        if sampler in ("sequential", "shuffle"):
            return self.prior, self.image_prior
        images = torch.bincount(self.train.labels).double()
        drawn = (images ** (POWERS[sampler] - 1))[self.train.labels]  # how often, up to a factor
        pixels = self.train.pixels.double()
        return ClassPrior(drawn @ pixels), ClassPrior(drawn @ (pixels > 0).double())

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, PixelSplit]:
        """The splits that exist, by name: train, val, test."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def evaluated(self) -> str | None:
        """Name of the split that a run is evaluated on: test, else val, else None."""
        return next((name for name in ("test", "val") if name in self.splits), None)


def load_pixels(config: PixelDataConfig) -> PixelDataset:
    """Finds and checks the images and masks of a source, and counts their pixels.

    The images are held in memory when all have the same size once resized and take no more than
    2 GiB.

    Raises:
        BadPairsError: names every image and mask that cannot be used, and why.
        InputError: when the source is unknown, or a class has no training pixel.
    """
    layout = find_layout(config)
    if not layout.splits.get("train"):
        raise InputError(f"{layout.root} has no training image in the layout {layout.name}")
    counts = count_pairs(layout)
    names = layout.class_names or tuple(
        f"class {c}" for c in range(int(np.flatnonzero(counts.pixels.any(axis=0)).max()) + 1)
    )
    _check_classes(layout, counts, names)
    splits = _splits(layout, counts, names, config.image_size)
    return PixelDataset(
        name=layout.name,
        class_names=names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        coding=layout.coding,
        image_size=config.image_size,
    )


def _check_classes(layout: Layout, counts: PairCounts, names: tuple[str, ...]) -> None:
    """Refuses classes without a training pixel, which have no prior."""
    trained = counts.pixels[: len(layout.splits["train"])].sum(0)
    absent = [name for name, count in zip(names, trained, strict=False) if not count]
    if absent:
        raise InputError(
            f"every class must have a pixel in the training split of {layout.root}, "
            f"{len(absent)} of {len(names)} have none: {', '.join(absent[:10])}"
        )


def _splits(
    layout: Layout, counts: PairCounts, names: tuple[str, ...], shorter: int | None
) -> dict[str, PixelSplit]:
    total = counts.pixels[: len(layout.splits["train"])].sum(0)[: len(names)]
    sizes = {scaled_size((int(w), int(h)), shorter) for w, h in np.unique(counts.sizes, axis=0)}
    (width, height) = next(iter(sizes))
    fits = len(sizes) == 1 and len(counts.sizes) * 4 * width * height <= IN_MEMORY_BYTES
    splits = {}
    begin = 0
    for name, pairs in layout.splits.items():
        rows = slice(begin, begin + len(pairs))
        begin += len(pairs)
        if not pairs:
            continue
        reader = PairReader(dict(pairs), layout.coding, shorter)
        pixels = counts.pixels[rows, : len(names)]
        splits[name] = PixelSplit(
            labels=torch.from_numpy(np.where(pixels > 0, total, total.max() + 1).argmin(1)),
            index=torch.arange(rows.start, rows.stop),
            images=reader.read_all((width, height)) if fits else None,
            paths=tuple(image for image, _ in pairs),
            masks=tuple(mask for _, mask in pairs),
            pixels=torch.from_numpy(pixels),
        )
    return splits
