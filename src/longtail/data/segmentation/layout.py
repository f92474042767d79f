"""What a folder layout comes to: files of images and masks, and what the masks mean."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longtail.data.folder import files_below, is_image
from longtail.data.segmentation.masks import ColourCoding, IndexCoding

Pair = tuple[str, str]  # files of an image and of its mask


@dataclass(frozen=True)
class Layout:
    """Files of a data set, found but not read.

    Args:
        name: of the data set.
        root: its folder.
        splits: train, val, test, each with its pairs.
        coding: of the masks.
        class_names: in the order of the class indices; empty where nobody names them.
    """

    name: str
    root: Path
    splits: dict[str, list[Pair]]
    coding: IndexCoding | ColourCoding
    class_names: tuple[str, ...]


def as_png(file: Path) -> Path:
    """The same path with the suffix .png."""
    return file.with_suffix(".png")


def find_pairs(images: Path, masks: Path, rename: Callable[[Path], Path] = as_png) -> list[Pair]:
    """Every image file below a folder, at any depth and in order, with the mask it should have.

    Args:
        images: folder of the images; none is found where there is no such folder.
        masks: folder of the masks.
        rename: from an image's path below `images` to its mask's below `masks`.
    """
    files = sorted(Path(path) for path in files_below(images) if is_image(path))
    return [(str(file), str(masks / rename(file.relative_to(images)))) for file in files]
