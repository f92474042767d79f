"""Pixels of each class in each image: counted once, in parallel, and kept beside the data."""

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
from longtail.data.segmentation.layout import Layout, Pair
from longtail.data.segmentation.masks import ColourCoding, IndexCoding
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.masks import IGNORED


class BadPairsError(UnreadableImagesError):
    """Images and masks that cannot be used, all that were found."""

    what = "images with masks cannot be used"
    remedy = "Mend them"


class _BadFileError(ValueError):
    """What is wrong with one file of a pair."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Whatever goes wrong inside is said of this file."""
    try:
        yield
    except FileNotFoundError as error:
        raise _BadFileError(path, "there is no such file") from error
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise _BadFileError(path, reason_of(error, path)) from error


@dataclass(frozen=True)
class PairCounts:
    """What is known of every pair of a data set, part after part.

    Args:
        pixels: (N, 255) int64, pixels of each class in each image, ignored ones left out.
        sizes: (N, 2) int64, width and height.
    """

    pixels: NDArray[np.int64]
    sizes: NDArray[np.int64]


def count_pairs(layout: Layout) -> PairCounts:
    """Reads and checks every mask, or takes what was counted before from the data's folder.

    The counts lie in `.longtail-pixels-*.npz` in the root, and hold as long as no file's size or
    time changes; where the folder cannot be written to, they are counted anew each time.

    Raises:
        BadPairsError: names every mask that is missing, of another size than its image, without
            any class, or with a value that is none, and every file that cannot be read.
    """
    pairs = [pair for part in layout.splits.values() for pair in part]
    signature = _signature(pairs, layout.coding)
    known = hashlib.sha256(repr(layout.coding).encode()).hexdigest()[:12]
    path = layout.root / f".longtail-pixels-{known}.npz"
    cached = _read(path, signature)
    if cached is not None:
        return cached
    pixels = np.zeros((len(pairs), IGNORED), dtype=np.int64)
    sizes = np.zeros((len(pairs), 2), dtype=np.int64)

    def count(place: int) -> None:
        image, mask = pairs[place]
        sizes[place], pixels[place] = _look_at(image, mask, layout.coding)

    for_each_pair(pairs, count)
    counts = PairCounts(pixels, sizes)
    with contextlib.suppress(OSError), whole_file(path) as part, part.open("wb") as handle:
        np.savez_compressed(handle, pixels=pixels, sizes=sizes, signature=np.array(signature))
    return counts


def for_each_pair(pairs: Sequence[Pair], work: Callable[[int], None]) -> None:
    """Calls `work` with the place of every pair, in threads.

    Raises:
        BadPairsError: names every file of which `work` said by `about` what is wrong with it.
    """

    def tried(place: int) -> Failure | None:
        try:
            work(place)
        except _BadFileError as error:
            return error.path, error.reason
        return None

    if found := in_threads(len(pairs), tried):
        raise BadPairsError(found, len(pairs))


def _look_at(
    image: str, mask: str, coding: IndexCoding | ColourCoding
) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Size of a pair and the pixels of each class."""
    with about(image), Image.open(image) as picture:
        size = upright_size(picture)
    with about(mask), Image.open(mask) as picture:
        if picture.size != size:
            raise InputError(f"the mask is {picture.size} pixels, its image {size} ({image})")
        pixels = np.bincount(coding.decode(picture).ravel(), minlength=256)[:IGNORED]
        if not pixels.any():
            raise InputError("all its pixels are ignored")
    return size, pixels


def _signature(pairs: Sequence[Pair], coding: IndexCoding | ColourCoding) -> str:
    """Changes whenever a file does, or the meaning of the masks."""
    digest = hashlib.sha256(repr(coding).encode())
    for path in (path for pair in pairs for path in pair):
        with contextlib.suppress(OSError):  # a missing file is named when the pairs are read
            state = os.stat(path)
            digest.update(json.dumps([path, state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest()


def _read(path: Path, signature: str) -> PairCounts | None:
    """What was counted for just these files, if it was."""
    try:
        with np.load(path) as stored:
            if str(stored["signature"]) == signature:
                return PairCounts(stored["pixels"], stored["sizes"])
    except Exception:  # not there, not readable, or no such file: numpy raises nearly anything
        return None
    return None
