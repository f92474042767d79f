"""Image formats by the suffix of the file name."""

import functools
import os
from collections import Counter
from collections.abc import Iterable

from longtail.data.paths import name_of

HEIF = frozenset({".heic", ".heif", ".hif"})
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHER = (".avif", ".bmp", ".gif", ".jp2", ".png", ".tga", ".tif", ".tiff", ".webp")
PORTABLE = (".pbm", ".pgm", ".ppm")
SUFFIXES = HEIF.union(JPEG, OTHER, PORTABLE)
RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw")
# Pillow opens many raw files as TIFF and returns their thumbnail, so they are refused by suffix.
REFUSED = {
    ".svg": "vector graphics (.svg) are not supported; export them as PNG",
    **{suffix: f"camera raw files ({suffix}) are not supported; export as JPEG" for suffix in RAW},
}


def is_image(path: str) -> bool:
    """Whether the suffix is that of an image file that can be read here."""
    suffix = suffix_of(path)
    return suffix in SUFFIXES and (suffix not in HEIF or reads_heif())


def suffix_of(path: str) -> str:
    """Suffix of a file name in lower case, such as `.jpg`."""
    return os.path.splitext(name_of(path))[1].lower()


@functools.cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed; registers it with Pillow."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def counted_by_suffix(names: Iterable[str]) -> str:
    """Number of files with each suffix, and why known ones are not read.

    Examples:
        >>> counted_by_suffix(["a.txt", "b.TXT", "README"])
        '.txt (2), no suffix (1)'
    """
    suffixes = Counter(map(suffix_of, names))
    counts = [f"{suffix or 'no suffix'} ({n:,})" for suffix, n in suffixes.most_common()]
    reasons = [f"; {reason}" for suffix in suffixes if (reason := why_refused(suffix))]
    return ", ".join(counts) + "".join(reasons)


def why_refused(suffix: str) -> str | None:
    """Why image files with this suffix are not read; None for all other suffixes."""
    if suffix in HEIF and not reads_heif():
        return f"{suffix} files need the package pillow-heif: pip install 'longtail[heif]'"
    return REFUSED.get(suffix)
