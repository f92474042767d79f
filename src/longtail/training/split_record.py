"""The split of a run: recorded at the start, and compared with the data on resumption."""

import csv
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from longtail.data.dataset import Split, TrainingData
from longtail.data.images import in_threads
from longtail.data.paths import file_of
from longtail.data.problems import counted
from longtail.data.reading import read_bytes
from longtail.errors import InputError
from longtail.files import whole_file

FILE = "split.csv"
HASHED = 2 << 30  # bytes of a data set up to which the content of its files is recorded
REMEDY = "Restore them, or train on the data as they are with another --out"
ACCEPT = "; --accept-replaced resumes with these images as they are now"

Stats = Mapping[str, tuple[int, int]]  # size and modification time of each file that exists


class Row(NamedTuple):
    """An image of a run; fields after `split` are empty if an older version wrote the file.

    Args:
        path: its file, or its name if it has none.
        label: name of its class.
        split: `train`, `val` or `test`.
        class_index: index of its class.
        size: bytes of its file; those of an image and its mask are joined by `+`.
        modified: modification time of its file in nanoseconds, joined likewise.
        content: hash of its file, or of its pixels if there is no file; empty in data sets of more
            than 2 GiB, which would take long to read.
    """

    path: str
    label: str
    split: str
    class_index: str = ""
    size: str = ""
    modified: str = ""
    content: str = ""


@dataclass(frozen=True)
class Image:
    """An image as it is now: its row, without the hash of its content, and where to find that."""

    row: Row
    files: tuple[str, ...]
    pixels: Tensor | None

    @property
    def content(self) -> str:
        """Hash of the files, or of the pixels if there is no file."""
        if self.files:
            return _hash_of_files(self.files, self.row.modified)
        return "" if self.pixels is None else _hash(self.pixels.numpy().tobytes())

    def replaces(self, before: Row) -> bool:
        """Whether its content differs from that of a recorded row, as far as that is known."""
        if not (before.size or before.content):
            return False
        if before.size != self.row.size:
            return True
        if before.size and before.modified == self.row.modified:
            return False
        return not before.content or before.content != self.content  # a copy has another time


def write_split(folder: Path, dataset: TrainingData[Split]) -> None:
    """Writes `split.csv`: every image of a run with its class and split.

    It can be used as a table to train on: it gives the same splits, whatever the seed or later
    changes.
    """
    stats = _stats(dataset)
    images = _images(dataset, stats)
    contents = ["" if image.files else image.content for image in images]
    if sum(size for size, _ in stats.values()) <= HASHED:

        def read(number: int) -> None:
            contents[number] = contents[number] or images[number].content

        in_threads(len(images), read)
    with (
        whole_file(folder / FILE) as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(Row._fields)
        for image, content in zip(images, contents, strict=True):
            writer.writerow(image.row._replace(content=content))


def read_split(folder: Path) -> list[Row] | None:
    """Reads `split.csv`; None if there is none.

    Raises:
        InputError: when it is not the table of a run's images.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
        try:
            names, *cells = csv.reader(handle, strict=True)
            rows = [Row(**dict(zip(names, row, strict=True))) for row in cells]
            if not rows:
                raise ValueError("it has no row")
            for row in rows:
                int(row.class_index or 0)
                if "\0" in "".join(row):
                    raise ValueError("it has NUL bytes")
        except (csv.Error, ValueError, TypeError) as error:
            raise InputError(
                f"{path} is corrupt, not a table of a run's images: {error}"
            ) from error
    return rows


def check_split(
    folder: Path,
    dataset: TrainingData[Split],
    *,
    moved: Callable[[str], str] = str,
    accept_replaced: bool = False,
    use: str = "resumed",
) -> list[str]:
    """Compares the data with the recorded split of a run, without writing anything.

    Args:
        folder: the run folder.
        dataset: the data as they are now.
        moved: gives the present location of a recorded path.
        accept_replaced: accept image files that have changed, under the same label and split.
        use: what the data are needed for, for the message.

    Returns: paths of the accepted images whose files have changed.
    Raises:
        InputError: lists the differences, or says that `split.csv` is corrupt.
    """
    before = read_split(folder)
    if before is None:
        warnings.warn(
            f"{folder} has no {FILE}: cannot check whether its data have changed", stacklevel=2
        )
        return []
    images = _images(dataset, _stats(dataset))
    before, now = [row._replace(path=moved(row.path)) for row in before], [i.row for i in images]
    if [row.path for row in before] != [row.path for row in now]:
        before, now = _resolved(before), _resolved(now)
    known = _by_path(before)
    problems = _class_changes(before, now) + _row_changes(known, _by_path(now))
    replaced = [
        image.row.path
        for key, image in zip(_by_path(now), images, strict=True)
        if key in known and image.replaces(known[key])
    ]
    if problems or (replaced and not accept_replaced):
        accept = "" if problems else ACCEPT
        if replaced:
            problems.append(counted("images whose files have changed", replaced))
        raise InputError(
            f"{folder} cannot be {use}, its data have changed since it was started "
            f"({folder / FILE}):\n" + "\n".join(f"- {p}" for p in problems) + f"\n{REMEDY}{accept}"
        )
    if replaced:
        what = counted(f"{folder}: image files that have changed, accepted", replaced)
        warnings.warn(what, stacklevel=2)
    return replaced


def moved_to(folder: Path, dataset: TrainingData[Split]) -> Callable[[str], str]:
    """The present location of each path in `split.csv`, if the images have moved as a whole.

    The folder that contained all of them is then the one that contains them now.

    Args:
        folder: the run folder.
        dataset: the data as they are now.
    """
    before = [row.path for row in read_split(folder) or []]
    now = [path for split in dataset.splits.values() for path in split.paths]
    if not before or not all(map(os.path.isabs, [*before, *now])):
        return str
    old, new = os.path.commonpath(before), os.path.commonpath(now)
    return lambda path: os.path.normpath(os.path.join(new, os.path.relpath(path, old)))


def _stats(dataset: TrainingData[Split]) -> Stats:
    """Size and modification time of every file, read in threads for slow networks."""
    files = list(
        {file_of(f): 0 for split in dataset.splits.values() for fs in split.files for f in fs}
    )
    found: list[tuple[int, int] | None] = [None] * len(files)

    def look(number: int) -> None:
        try:
            status = os.stat(files[number])
        except (OSError, ValueError):  # a name, not a file
            return
        found[number] = status.st_size, status.st_mtime_ns

    in_threads(len(files), look)
    return {file: stat for file, stat in zip(files, found, strict=True) if stat}


def _images(dataset: TrainingData[Split], stats: Stats) -> list[Image]:
    images = []
    for name, split in dataset.splits.items():
        for i, (files, label) in enumerate(zip(split.files, split.labels.tolist(), strict=True)):
            found = [stats[file_of(file)] for file in files if file_of(file) in stats]
            exist = len(found) == len(files)
            sizes, times = (
                ("+".join(map(str, column)) for column in zip(*found, strict=True))
                if exist
                else ("", "")
            )
            row = Row(split.paths[i], dataset.class_names[label], name, str(label), sizes, times)
            pixels = None if split.images is None else split.images[i]
            images.append(Image(row, files if exist else (), pixels))
    return images


def _resolved(rows: Sequence[Row]) -> list[Row]:
    """Rows with the links in their folders resolved, since a folder has many spellings."""
    real = cache(os.path.realpath)

    def resolve(path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(str(real(folder)), name)

    return [row._replace(path=resolve(row.path)) for row in rows]


def _by_path(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """Rows by path and its number of previous occurrences, since names need not be unique."""
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        found[row.path, seen[row.path]] = row
        seen[row.path] += 1
    return found


def _row_changes(
    before: Mapping[tuple[str, int], Row], now: Mapping[tuple[str, int], Row]
) -> list[str]:
    """Images that were removed, added, relabelled or moved: one sentence for each kind."""
    both = [(before[key], now[key]) for key in before if key in now]
    kinds = {
        "images removed": [path for path, n in before if (path, n) not in now],
        "images added": [path for path, n in now if (path, n) not in before],
        "images of another class": [
            f"{a.path} (was {a.label}, is {b.label})" for a, b in both if a.label != b.label
        ],
        "images in another split": [
            f"{a.path} (was {a.split}, is {b.split})" for a, b in both if a.split != b.split
        ],
    }
    problems = [counted(what, items) for what, items in kinds.items() if items]
    if not problems and list(before) != list(now):
        problems.append("the images are in another order")
    return problems


def _class_changes(before: Iterable[Row], now: Iterable[Row]) -> list[str]:
    """Classes that were added, removed or reordered."""
    old, new = _classes(before), _classes(now)
    kinds = {
        "classes removed": [name for name in old if name not in new],
        "classes added": [name for name in new if name not in old],
    }
    problems = [counted(what, items) for what, items in kinds.items() if items and old]
    if not problems and old and old != new:
        moved = [f"{b} (was {a})" for a, b in zip(old, new, strict=True) if a != b]
        problems.append(counted("classes in another order", moved))
    return problems


def _classes(rows: Iterable[Row]) -> list[str]:
    """Names of the classes in their order; empty if an older version wrote the rows."""
    found = {(int(row.class_index), row.label) for row in rows if row.class_index}
    return [name for _, name in sorted(found)]


@lru_cache(maxsize=1 << 18)
def _hash_of_files(files: tuple[str, ...], modified: str) -> str:
    """Hash of some files; they are read again when their modification time changes."""
    return _hash(b"".join(map(read_bytes, files)))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
