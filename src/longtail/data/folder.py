"""A folder of images, sorted into sub-folders."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.records import SPLITS, Records, class_order, counted
from longtail.errors import InputError

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHER = (".avif", ".bmp", ".gif", ".jp2", ".png", ".tga", ".tif", ".tiff", ".webp")
PORTABLE = (".pbm", ".pgm", ".ppm")
SUFFIXES = frozenset(JPEG + OTHER + PORTABLE)


def folder(config: DataConfig) -> Records:
    """A folder with a sub-folder of images for each class, or train/ val/ test/ with such in them.

    A class folder may have folders of its own. What is hidden is passed over. Other files that are
    not taken are counted in a warning. `index` is an image's place in the sorted list of all.

    Raises:
        ValueError: when there is no class folder, or a class has no image.
    """
    root = Path(os.path.abspath(config.source))
    left_out: Counter[str] = Counter()
    found = {part: _classes(top, left_out) for part, top in _tops(root).items()}
    names = class_order(name for classes in found.values() for name in classes)
    number = {name: c for c, name in enumerate(names)}
    rows = sorted(
        (path, number[name], part)
        for part, classes in found.items()
        for name, paths in classes.items()
        for path in paths
    )
    if not names:
        raise InputError(f"{root} must have a sub-folder of images for each class, it has none")
    if left_out:
        counts = [f"{suffix or 'no suffix'} ({n:,})" for suffix, n in left_out.most_common()]
        warnings.warn(
            f"{root}: left out {left_out.total():,} files that lie beside the class folders or "
            f"have other suffixes than images: {', '.join(counts)}",
            stacklevel=2,
        )
    return Records(
        name=root.name,
        paths=[path for path, _, _ in rows],
        labels=np.array([label for _, label, _ in rows], dtype=np.int64),
        splits=np.array([part for _, _, part in rows], dtype="U5"),
        index=np.arange(len(rows)),
        class_names=names,
        origin=lambda row: rows[row][0],
        check="decode",
    )


def _tops(root: Path) -> dict[str, Path]:
    """The folder that holds the class folders of each part."""
    inside = {entry.name for entry in root.iterdir() if _is_folder(entry)}
    # A folder `train` without folders in it is a class of trains.
    if "train" in inside and any(map(_is_folder, (root / "train").iterdir())):
        others = sorted(inside.difference(SPLITS))
        if others:
            warnings.warn(
                f"{root}: " + counted("left out folders beside train, val and test", others),
                stacklevel=3,
            )
        return {part: root / part for part in SPLITS if part in inside}
    if inside and inside <= {"val", "test"}:
        raise InputError(f"{root} has no folder train beside {' and '.join(sorted(inside))}")
    return {"train": root}


def _classes(top: Path, left_out: Counter[str]) -> dict[str, list[str]]:
    """Images of each class folder."""
    classes = {}
    for entry in top.iterdir():
        if _is_folder(entry):
            classes[entry.name] = list(_images(entry, left_out))
        elif entry.suffix.lower() in SUFFIXES:
            left_out[entry.suffix.lower()] += 1
    return classes


def _images(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    for path in files_below(folder):
        if is_image(path):
            yield path
        else:
            left_out[os.path.splitext(path)[1].lower()] += 1


def files_below(folder: Path) -> Iterator[str]:
    """Files at any depth but the hidden ones and those in hidden folders.

    A folder that links lead to more than once is entered once.
    """
    entered = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(place, name) for name in names if not name.startswith("."))


def is_image(path: str) -> bool:
    """Whether the name is that of an image file."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
