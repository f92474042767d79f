"""ADE20K with 150 classes, in the folders of the scene parsing challenge."""

import csv
from pathlib import Path

from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.layout import Layout, find_pairs
from longtail.data.segmentation.masks import IndexCoding

NUM_CLASSES = 150
PARTS = {"train": "training", "val": "validation"}
NAMES = "objectInfo150.txt"


def is_ade20k(root: Path) -> bool:
    """Whether a folder is laid out like this."""
    return (root / "images" / "training").is_dir()


def ade20k(root: Path, config: PixelDataConfig) -> Layout:
    """ADE20K: images/training beside annotations/training, 150 classes from 1, 0 is ignored."""
    parts = {
        part: find_pairs(root / "images" / folder, root / "annotations" / folder)
        for part, folder in PARTS.items()
    }
    coding = IndexCoding(NUM_CLASSES, first=1, ignored=(0,))
    return Layout("ade20k", root, parts, coding, _names(root / NAMES))


def _names(path: Path) -> tuple[str, ...]:
    """First name of each class in the list that comes with the data; numbers where it is absent."""
    if not path.is_file():
        return tuple(f"class {c + 1}" for c in range(NUM_CLASSES))
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    names = [next(v for k, v in row.items() if k.strip() == "Name") for row in rows]
    if len(names) != NUM_CLASSES:
        raise ValueError(f"{path} must list {NUM_CLASSES} classes, got {len(names)}")
    return tuple(name.split(",")[0].strip() for name in names)
