"""Any folder of images beside a folder of masks."""

from pathlib import Path

from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.layout import Layout, find_pairs
from longtail.data.segmentation.masks import (
    ColourCoding,
    IndexCoding,
    read_class_names,
    read_palette,
)

SPLITS = ("train", "val", "test")


def is_folder(root: Path) -> bool:
    """Whether a folder is laid out like this."""
    return (root / "images" / "train").is_dir()


def folder(root: Path, config: PixelDataConfig) -> Layout:
    """images/{train,val,test} beside masks/{train,val,test}: PNG of the same name.

    Masks are index PNGs (grey or with a palette of their own, 255 is ignored), or colour pictures
    with a palette file.
    """
    splits = {part: find_pairs(root / "images" / part, root / "masks" / part) for part in SPLITS}
    coding: IndexCoding | ColourCoding
    if config.palette is not None:
        coding, names = read_palette(config.palette)
        return Layout(root.name, root, splits, coding, names)
    listed = Path(config.classes) if config.classes else root / "classes.txt"
    names = read_class_names(listed) if config.classes or listed.is_file() else ()
    return Layout(root.name, root, splits, IndexCoding(len(names) or None), names)
