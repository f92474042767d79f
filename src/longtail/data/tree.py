"""The folders below a data set folder, without system folders."""

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from longtail.data.formats import is_image, suffix_of, why_refused

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
    ]
) | {"system volume information"}
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

    def has_only_other_files(self, parts: Parts) -> bool:
        """Whether there are files in a folder or below, but no images, not even unreadable ones."""
        files = [name for folder in self.below(parts) for name in self.others[folder]]
        return bool(files) and not (
            self.total(*parts) or any(why_refused(suffix_of(name)) for name in files)
        )

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

    A folder that is reached by several links is entered once.
    """
    entered = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [n for n in folders if not n.startswith(".") and n.casefold() not in SYSTEM]
        yield (
            place,
            [n for n in names if not n.startswith(".") and n.casefold() not in SYSTEM_FILES],
        )


def files_below(folder: Path) -> Iterator[str]:
    """Files at any depth, without hidden files and those in hidden or system folders."""
    for place, names in folders_below(folder):
        yield from (os.path.join(place, name) for name in names)
