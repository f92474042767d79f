"""What every source of images and masks becomes."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longtail.data.dataset import Split
from longtail.data.samplers import POWERS, Sampler
from longtail.data.segmentation.masks import ColourCoding, IndexCoding
from longtail.prior import ClassPrior


@dataclass(frozen=True, eq=False)
class PixelSplit(Split):
    """One part of a segmentation data set.

    A pair is one uint8 tensor of four planes: red, green, blue and class (255 where ignored), so
    that whatever moves the pixels moves their classes along.

    Args:
        labels: (N,) int64, the rarest class in each image: what the samplers go by.
        index: (N,) int64, place of each image in its source.
        images: (N, 4, H, W) uint8 when held in memory, else None.
        paths: file of each image.
        masks: file of each mask.
        pixels: (N, C) int64, pixels of each class in each image.
    """

    masks: tuple[str, ...]
    pixels: Tensor

    @property
    def mask_of(self) -> dict[str, str]:
        """File of each image's mask, by the file of the image."""
        return dict(zip(self.paths, self.masks, strict=True))


@dataclass(frozen=True, eq=False)
class PixelDataset:
    """Images whose every pixel has a class, or is ignored.

    Args:
        name: shown in tables and pages.
        class_names: name of each class, in the order of the class indices.
        train: what is learned from; every class has a pixel in it.
        val: what settings may be chosen on, if there is such a part.
        test: what the result is judged on, if there is such a part.
        coding: of the mask files.
        image_size: shorter side that images are brought to; None leaves them as they are.
    """

    name: str
    class_names: tuple[str, ...]
    train: PixelSplit
    val: PixelSplit | None
    test: PixelSplit | None
    coding: IndexCoding | ColourCoding
    image_size: int | None

    @cached_property
    def prior(self) -> ClassPrior:
        """Pixels of each class in the training part."""
        return ClassPrior(self.train.pixels.sum(0))

    @cached_property
    def image_prior(self) -> ClassPrior:
        """Training images that have each class: the mix of a fixed number a class and image."""
        return ClassPrior((self.train.pixels > 0).sum(0))

    def priors_as_drawn(self, sampler: Sampler) -> tuple[ClassPrior, ClassPrior]:
        """Prior and image prior of what a sampler draws: it goes by the rarest class in an image.

        Images with rare classes, drawn more often, bring pixels of all their classes along.
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
        """The splits that there are, by name: train, val, test."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def judged(self) -> str | None:
        """The part that the result is judged on: test, else val, else none."""
        return next((part for part in ("test", "val") if part in self.splits), None)
