"""CamVid, in the folders that SegNet's authors gave it."""

from pathlib import Path

from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.layout import Layout, find_pairs
from longtail.data.segmentation.masks import IndexCoding

SPLITS = ("train", "val", "test")
CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def is_camvid(root: Path) -> bool:
    """Whether a folder is laid out like this."""
    return (root / "train").is_dir() and (root / "trainannot").is_dir()


def camvid(root: Path, config: PixelDataConfig) -> Layout:
    """CamVid: train/ val/ test/ beside trainannot/ ..., 11 classes, 11 in a mask is unlabelled."""
    splits = {part: find_pairs(root / part, root / f"{part}annot") for part in SPLITS}
    return Layout("camvid", root, splits, IndexCoding(len(CLASSES), ignored=(11,)), CLASSES)
