"""Pixel counts per class and image, computed in parallel and cached in the data's folder."""

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from longtail.data.images import (
    Failure,
    UnreadableImagesError,
    in_threads,
    reason_of,
    upright_size,
)
from longtail.data.problems import counted
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.segmentation.layouts import Layout
from longtail.segmentation.masks import (
    NO_CLASS,
    Coding,
    ColourCoding,
    is_lossy,
    mask_values,
    not_a_class,
)
from longtail.segmentation.pairing import PairFiles


class BadPairsError(UnreadableImagesError):
    """Names all images and masks that cannot be used, by reason."""

    what = "images with masks cannot be used"
    remedy = "Fix them"

    def by_reason(self) -> list[str]:
        """Each reason with the files that it applies to."""
        paths = defaultdict(list)
        for path, reason in self.failures:
            paths[reason].append(path)
        return [counted(reason, found) for reason, found in paths.items()]

    def _lines(self) -> list[str]:
        return [f"  {line}" for line in self.by_reason()]


class _BadFileError(ValueError):
    """Names what is wrong with one file of an image or its mask."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Attributes any error raised inside to this file."""
    try:
        yield
    except FileNotFoundError as error:
        raise _BadFileError(path, "there is no such file") from error
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise _BadFileError(path, reason_of(error, path)) from error


@dataclass(frozen=True)
class PairCounts:
    """Pixels of each mask value and size of every image of a data set, split after split.

    Args:
        values: (N, 256) int64, pixels of each value of an index mask; for a colour mask, those of
            each class, with 255 ignored.
        sizes: (N, 2) int64, width and height.
        lossy: (N,) bool, whether the values of a mask may differ from those that were saved.
        failures: file and reason for each image or mask that cannot be read.
    """

    values: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lossy: NDArray[np.bool_]
    failures: tuple[Failure, ...] = ()


def count_pairs(layout: Layout) -> PairCounts:
    """Reads every mask, or loads the counts that are cached in the data's folder.

    The cache, `.longtail-pixels-*.npz`, is valid while no file's size or modification time changes.
    If the folder is read-only, the pixels are counted each time.

    Returns: the counts; its failures are masks that are missing or whose size is not that of the
        image, and files that cannot be read.
    """
    pairs = [pair for split in layout.splits.values() for pair in split]
    colours = layout.coding if isinstance(layout.coding, ColourCoding) else None
    signature = _signature(pairs)
    known = hashlib.sha256(repr(colours).encode()).hexdigest()[:12]
    path = layout.root / f".longtail-pixels-{known}.npz"
    cached = _read(path, signature)
    if cached is not None:
        return cached
    values = np.zeros((len(pairs), 256), dtype=np.int64)
    sizes = np.zeros((len(pairs), 2), dtype=np.int64)
    lossy = np.zeros(len(pairs), dtype=np.bool_)

    def count(number: int) -> None:
        image, mask = pairs[number]
        sizes[number], values[number], lossy[number] = _look_at(image, mask, colours)

    failures = try_each_pair(len(pairs), count)
    counts = PairCounts(values, sizes, lossy, tuple(failures))
    if not failures:
        with contextlib.suppress(OSError), whole_file(path) as part, part.open("wb") as handle:
            np.savez_compressed(
                handle, values=values, sizes=sizes, lossy=lossy, signature=np.array(signature)
            )
    return counts


def by_class(
    counts: PairCounts, pairs: Sequence[PairFiles], coding: Coding, num_classes: int
) -> NDArray[np.int64]:
    """Pixels of each class in each image, (N, C), without ignored ones.

    Raises:
        BadPairsError: names every mask with a value that is not a class, or without a pixel that
            counts, and all failures of the counts.
    """
    pixels = np.zeros((len(pairs), num_classes), dtype=np.int64)
    failures = list(counts.failures)
    for lossy in np.unique(counts.lossy):
        rows = np.flatnonzero(counts.lossy == lossy).tolist()
        if isinstance(coding, ColourCoding):
            pixels[rows] = counts.values[rows, :num_classes]
            continue
        try:
            table = coding.table(bool(lossy))
        except InputError as error:
            failures += [(pairs[row][1], str(error)) for row in rows]
            continue
        pixels[rows] = counts.values[rows] @ (table[:, None] == np.arange(num_classes))
        for row, wrong in zip(rows, counts.values[rows][:, table == NO_CLASS] > 0, strict=True):
            if wrong.any():
                values = np.flatnonzero(table == NO_CLASS)[wrong].tolist()
                failures.append((pairs[row][1], not_a_class(values)))
    named = {path for path, _ in failures}
    for row in np.flatnonzero(~pixels.any(1)).tolist():
        if not named.intersection(pairs[row]):
            failures.append((pairs[row][1], "all its pixels are ignored"))
    if failures:
        raise BadPairsError(failures, len(pairs))
    return pixels


def for_each_pair(pairs: Sequence[PairFiles], work: Callable[[int], None]) -> None:
    """Calls `work` with the number of every image-mask pair, in threads.

    Raises:
        BadPairsError: names every file for which `work` failed inside `about`.
    """
    if found := try_each_pair(len(pairs), work):
        raise BadPairsError(found, len(pairs))


def try_each_pair(count: int, work: Callable[[int], None]) -> list[Failure]:
    """Calls `work` with the number of every pair, in threads.

    Returns: the files for which it failed inside `about`.
    """

    def tried(number: int) -> Failure | None:
        try:
            work(number)
        except _BadFileError as error:
            return error.path, error.reason
        return None

    return in_threads(count, tried)


def _look_at(
    image: str, mask: str, colours: ColourCoding | None
) -> tuple[tuple[int, int], NDArray[np.int64], bool]:
    """Size of an image, pixels of each value of its mask, and whether these may be inexact."""
    with about(image), Image.open(image) as picture:
        size = upright_size(picture)
    with about(mask), Image.open(mask) as picture:
        if picture.size != size:
            raise InputError(f"the mask is {picture.size} pixels, its image {size}")
        values = mask_values(picture) if colours is None else colours.decode(picture)
        lossy = is_lossy(picture)
    return size, np.bincount(values.ravel(), minlength=256), lossy


def _signature(pairs: Sequence[PairFiles]) -> str:
    """A digest that changes with every file."""
    digest = hashlib.sha256()
    for path in (path for pair in pairs for path in pair):
        with contextlib.suppress(OSError):  # a missing file is named when the pairs are read
            state = os.stat(path)
            digest.update(json.dumps([path, state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest()


def _read(path: Path, signature: str) -> PairCounts | None:
    """The cached counts of exactly these files, if there are any."""
    try:
        with np.load(path) as stored:
            if str(stored["signature"]) == signature:
                return PairCounts(stored["values"], stored["sizes"], stored["lossy"])
    except Exception:  # missing or corrupt: numpy raises nearly anything
        return None
    return None
