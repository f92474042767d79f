"""ADE20K with 150 classes, in the folders of the scene parsing challenge."""

import csv
from pathlib import Path

from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.layout import Layout, find_pairs
from longtail.data.segmentation.masks import IndexCoding
from longtail.errors import InputError
from longtail.files import read_text

NUM_CLASSES = 150
SPLITS = {"train": "training", "val": "validation"}
NAMES = "objectInfo150.txt"


def is_ade20k(root: Path) -> bool:
    """Whether a folder is laid out like this."""
    return (root / "images" / "training").is_dir()


def ade20k(root: Path, config: PixelDataConfig) -> Layout:
    """ADE20K: images/training beside annotations/training, 150 classes from 1, 0 is ignored."""
    splits = {
        part: find_pairs(root / "images" / folder, root / "annotations" / folder)
        for part, folder in SPLITS.items()
    }
    coding = IndexCoding(NUM_CLASSES, first=1, ignored=(0,))
    return Layout("ade20k", root, splits, coding, _names(root / NAMES))


def _names(path: Path) -> tuple[str, ...]:
    """First name of each class in the list that comes with the data; numbers where it is absent."""
    if not path.is_file():
        return tuple(f"class {c + 1}" for c in range(NUM_CLASSES))
    rows = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    rows.fieldnames = columns = [name.strip() for name in rows.fieldnames or ()]
    if "Name" not in columns:
        raise InputError(f"{path} must have a column Name, got {columns}")
    names = [row["Name"] or "" for row in rows]
    if len(names) != NUM_CLASSES:
        raise InputError(f"{path} must list {NUM_CLASSES} classes, got {len(names)}")
    return tuple(name.split(",")[0].strip() for name in names)
