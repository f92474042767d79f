"""The folders below a data set folder, without system folders."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from longtail.data.formats import is_image, suffix_of, why_refused
from longtail.errors import InputError

Parts = tuple[str, ...]  # names on the way from the data set folder to a folder

# Of NAS devices, archives, trash cans and notebooks; hidden ones are skipped as well.
SYSTEM = frozenset(
    [
        "@eadir",
        "__macosx",
        "__pycache__",
        "#recycle",
        "$recycle.bin",
        "@recycle",
        "lost+found",
        "system volume information",
    ]
)
SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "ehthumbs.db"))


class Tree:
    """Images and other files of each folder.

    Args:
        root: the data set folder.

    Attributes:
        images: names of the image files in each folder, every folder being listed.
        others: names of the other files in each folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[Parts, list[str]] = {}
        self.others: dict[Parts, list[str]] = {}
        begin = len(root.parts)
        for place, names in folders_below(root):
            parts = Path(place).parts[begin:]
            self.images[parts] = [name for name in names if is_image(name)]
            self.others[parts] = [name for name in names if not is_image(name)]

    def children(self, parts: Parts) -> list[str]:
        """Folders in a folder, sorted."""
        return self._children.get(parts, [])

    def full(self, parts: Parts) -> list[str]:
        """Folders in a folder that contain images at any depth, sorted."""
        return [name for name in self.children(parts) if self.total(*parts, name)]

    def total(self, *parts: str) -> int:
        """Images in a folder and below."""
        return self._totals[parts]

    def below(self, parts: Parts) -> Iterator[Parts]:
        """A folder and all below it."""
        yield parts
        for name in self.children(parts):
            yield from self.below((*parts, name))

    def refused(self, parts: Parts) -> list[str]:
        """Images in a folder and below of a format that is not read, by their suffix."""
        files = (name for folder in self.below(parts) for name in self.others[folder])
        return [name for name in files if why_refused(suffix_of(name))]

    def has_only_other_files(self, parts: Parts) -> bool:
        """Whether there are files in a folder or below, but no images, not even unreadable ones."""
        files = any(self.others[folder] for folder in self.below(parts))
        return files and not self.total(*parts) and not self.refused(parts)

    @cached_property
    def _children(self) -> dict[Parts, list[str]]:
        children: dict[Parts, list[str]] = {}
        for parts in sorted(self.images):
            if parts:
                children.setdefault(parts[:-1], []).append(parts[-1])
        return children

    @cached_property
    def _totals(self) -> Counter[Parts]:
        totals: Counter[Parts] = Counter()
        for parts, names in self.images.items():
            for end in range(len(parts) + 1):
                totals[parts[:end]] += len(names)
        return totals


def folders_below(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder at any depth with the names of its files, except hidden and system ones.

    Links to folders are followed after all else. A folder that is reached by a link as well is
    entered once, and left out with a warning after that. One that does not exist has no files.

    Raises:
        InputError: for a folder that cannot be read.
    """
    entered: dict[str, str] = {}
    tops = [str(folder)]  # and links, as they are found
    for top in tops:
        for place, folders, names in os.walk(top, onerror=_refuse):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                first = entered[real]
                warnings.warn(
                    f"{place} is left out: it is the same folder as {first}", stacklevel=2
                )
                continue
            entered[real] = place
            folders[:] = sorted(_without(SYSTEM, folders))
            tops += filter(os.path.islink, (os.path.join(place, name) for name in folders))
            yield place, _without(SYSTEM_FILES, names)


def _without(system: frozenset[str], names: Sequence[str]) -> list[str]:
    """Names that are neither hidden nor of the system."""
    return [name for name in names if not name.startswith(".") and name.casefold() not in system]


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # it has no files
        return
    raise InputError(f"folder {error.filename} cannot be read: {error.strerror}") from error


def files_below(folder: Path) -> Iterator[str]:
    """Files at any depth, without hidden files and those in hidden or system folders."""
    for place, names in folders_below(folder):
        yield from (os.path.join(place, name) for name in names)


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth, sorted; see `files_below`."""
    return sorted(Path(path) for path in files_below(folder) if is_image(path))
