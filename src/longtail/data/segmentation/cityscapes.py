"""Cityscapes, in its published folders."""

from pathlib import Path

from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.layout import Layout, find_pairs
from longtail.data.segmentation.masks import IndexCoding

IMAGE, MASK = "_leftImg8bit", "_gtFine_labelTrainIds"
CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)


def is_cityscapes(root: Path) -> bool:
    """Whether a folder is laid out like this."""
    return (root / "leftImg8bit").is_dir()


def cityscapes(root: Path, config: PixelDataConfig) -> Layout:
    """Cityscapes: leftImg8bit/ and gtFine/ with *_labelTrainIds.png, 19 classes; val is judged.

    The labels of its test part are not public, so it is left alone. The files with train ids are
    made by the `createTrainIdLabelImgs` script of the data set's authors.
    """
    splits = {
        part: find_pairs(root / "leftImg8bit" / part, root / "gtFine" / part, _mask_of)
        for part in ("train", "val")
    }
    return Layout("cityscapes", root, splits, IndexCoding(len(CLASSES)), CLASSES)


def _mask_of(file: Path) -> Path:
    return file.with_name(file.stem.removesuffix(IMAGE) + MASK + ".png")
