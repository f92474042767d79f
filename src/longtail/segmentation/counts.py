"""Pixels of each class in each image: counted in parallel, cached in the data's folder."""

import contextlib
import hashlib
import json
import os
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
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.segmentation.layouts import Layout, PairFiles
from longtail.segmentation.masks import IGNORED, Coding


class BadPairsError(UnreadableImagesError):
    """Names all images and masks that cannot be used."""

    what = "images with masks cannot be used"
    remedy = "Fix them"


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
    """Pixel counts and size of every image of a data set, split after split.

    Args:
        pixels: (N, 255) int64, pixels of each class in each image, without ignored ones.
        sizes: (N, 2) int64, width and height.
    """

    pixels: NDArray[np.int64]
    sizes: NDArray[np.int64]


def count_pairs(layout: Layout) -> PairCounts:
    """Reads and checks every mask, or loads the counts that are cached in the data's folder.

    The cache, `.longtail-pixels-*.npz`, is valid while no file's size or modification time changes.
    Where the folder is read-only, the pixels are counted each time.

    Raises:
        BadPairsError: names every mask that is missing, whose size is not its image's, whose pixels
            are all ignored, or with an invalid value, and every file that cannot be read.
    """
    pairs = [pair for split in layout.splits.values() for pair in split]
    signature = _signature(pairs, layout.coding)
    known = hashlib.sha256(repr(layout.coding).encode()).hexdigest()[:12]
    path = layout.root / f".longtail-pixels-{known}.npz"
    cached = _read(path, signature)
    if cached is not None:
        return cached
    pixels = np.zeros((len(pairs), IGNORED), dtype=np.int64)
    sizes = np.zeros((len(pairs), 2), dtype=np.int64)

    def count(number: int) -> None:
        image, mask = pairs[number]
        sizes[number], pixels[number] = _look_at(image, mask, layout.coding)

    for_each_pair(pairs, count)
    counts = PairCounts(pixels, sizes)
    with contextlib.suppress(OSError), whole_file(path) as part, part.open("wb") as handle:
        np.savez_compressed(handle, pixels=pixels, sizes=sizes, signature=np.array(signature))
    return counts


def for_each_pair(pairs: Sequence[PairFiles], work: Callable[[int], None]) -> None:
    """Calls `work` with the number of every image-mask pair, in threads.

    Raises:
        BadPairsError: names every file for which `work` failed inside `about`.
    """

    def tried(number: int) -> Failure | None:
        try:
            work(number)
        except _BadFileError as error:
            return error.path, error.reason
        return None

    if found := in_threads(len(pairs), tried):
        raise BadPairsError(found, len(pairs))


def _look_at(image: str, mask: str, coding: Coding) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Size of an image and its pixels of each class."""
    with about(image), Image.open(image) as picture:
        size = upright_size(picture)
    with about(mask), Image.open(mask) as picture:
        if picture.size != size:
            raise InputError(f"the mask is {picture.size} pixels, its image {size} ({image})")
        pixels = np.bincount(coding.decode(picture).ravel(), minlength=256)[:IGNORED]
        if not pixels.any():
            raise InputError("all its pixels are ignored")
    return size, pixels


def _signature(pairs: Sequence[PairFiles], coding: Coding) -> str:
    """A digest that changes with every file and with the coding of the masks."""
    digest = hashlib.sha256(repr(coding).encode())
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
                return PairCounts(stored["pixels"], stored["sizes"])
    except Exception:  # missing or corrupt: numpy raises nearly anything
        return None
    return None
