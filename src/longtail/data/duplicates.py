"""Search for pictures that are the same file, or nearly the same picture."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from longtail.data.images import open_image, to_rgb
from longtail.data.reading import read_bytes

# Both were chosen on 5,000 training images of CIFAR-100; bench/check.py measures them elsewhere.
BITS = 14  # largest number of the 63 bits of the hashes that may differ
CORRELATION = 0.94  # least correlation of the colours at 8x8
LIMIT = 300_000  # most pictures that are compared with each other, which takes quadratic time
BLOCK = 256
SIDE = 32

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(eq=False)
class Fingerprints:
    """Fingerprints by which pictures are recognised.

    Args:
        digests: (N,) uint64 hash of each file's content.
        hashes: (N,) uint64 perceptual hash of each picture.
        colours: (N, 192) float16, colours at 8x8, standardised; zero for a picture of one colour.
    """

    digests: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    colours: NDArray[np.float16]

    @classmethod
    def empty(cls, count: int) -> "Fingerprints":
        """Allocates the fingerprints of so many pictures."""
        numbers = np.zeros((2, count), np.uint64)
        return cls(numbers[0], numbers[1], np.zeros((count, 192), np.float16))

    def read(self, i: int, path: str) -> None:
        """Decodes a file, as small as its format allows, and keeps its fingerprint as the i-th."""
        digest = hashlib.blake2b(read_bytes(path), digest_size=8).digest()
        self.digests[i] = int.from_bytes(digest, "big")
        with open_image(path) as image:
            rgb = to_rgb(image, max(1.0, min(image.size) / SIDE))
        self.hashes[i] = perceptual_hash(rgb)
        small = np.asarray(rgb.resize((8, 8), Image.Resampling.BILINEAR), np.float32).ravel()
        small -= small.mean()
        self.colours[i] = small / norm if (norm := float(np.linalg.norm(small))) > 1 else 0


def perceptual_hash(image: Image.Image) -> np.uint64:
    """Signs of the 63 lowest frequencies of the grey picture about their median (pHash).

    Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
    """
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    low = (_COSINES @ np.asarray(grey, np.float64) @ _COSINES.T).ravel()[1:]
    return np.uint64(int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big"))


_COSINES = np.cos(np.pi * np.outer(np.arange(8), np.arange(SIDE) + 0.5) / SIDE)


def same_files(fingerprints: Fingerprints, read: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each picture the first one with the same content, (N,), which may be itself.

    Args:
        fingerprints: of N pictures.
        read: indices of the pictures that could be read.
    """
    first = np.arange(len(fingerprints.digests))
    _, where, inverse = np.unique(
        fingerprints.digests[read], return_index=True, return_inverse=True
    )
    first[read] = read[where[inverse]]
    return first


def similar_pairs(
    fingerprints: Fingerprints,
    pictures: NDArray[np.int64],
    done: Callable[[int], None] = lambda count: None,
) -> Iterator[Pairs]:
    """Pairs of pictures that are nearly the same, in blocks.

    Args:
        fingerprints: fingerprints of all pictures.
        pictures: indices of those to compare, all of different content.
        done: called with the number of pictures of each block.
    """
    pictures = pictures[fingerprints.colours[pictures].any(axis=1)]
    hashes, colours = fingerprints.hashes[pictures], fingerprints.colours[pictures]
    for begin in range(0, len(pictures), BLOCK):
        block = slice(begin, begin + BLOCK)
        differing = np.bitwise_count(hashes[block, None] ^ hashes[None, begin:])
        one, other = np.nonzero(differing <= BITS)
        one, other = one + begin, other + begin
        one, other = one[one < other], other[one < other]
        alike = (colours[one].astype(np.float32) * colours[other]).sum(1) > CORRELATION
        yield pictures[one[alike]], pictures[other[alike]]
        done(len(hashes[block]))
