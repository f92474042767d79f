"""A data set of image files: its rows, the checks before any is opened, and what it becomes."""

import contextlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset, Split
from longtail.data.images import check_images, file_of, natural_size, read_images
from longtail.data.strata import empty_part, hold_out
from longtail.errors import InputError

SMALL = 64  # largest side in pixels of images that are held in memory
LARGE = 224  # side when the images are larger and no size was asked for
MEMORY = 2 << 30  # bytes of images that are held in memory at most
NAMED = 10  # rows that a message names

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Records:
    """The rows of a data set on disk.

    Args:
        name: of the data set.
        paths: absolute path of each image.
        labels: (N,), class index of each.
        splits: (N,), `train`, `val` or `test` of each.
        index: (N,), place of each in its source.
        class_names: name of each class.
        origin: says where the row of a place stands, such as `birds.csv, line 7`.
        check: how the files that stay on disk are checked, unless the settings say it.
    """

    name: str
    paths: list[str]
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    index: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: Callable[[int], str]
    check: Literal["decode", "exists"]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: by value when all are whole numbers, else by the alphabet.

    Example:
        >>> class_order(["10", "9", "10"])
        ('9', '10')
        >>> class_order(["10", "9", "a"])
        ('10', '9', 'a')
    """
    distinct = set(names)
    if all(name.isdecimal() and str(int(name)) == name for name in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def counted(what: str, items: Sequence[str]) -> str:
    """What is wrong or worth knowing, how often, and the first places.

    Example:
        >>> counted("rows without a label", ["line 3", "line 8"])
        'rows without a label (2): line 3, line 8'
    """
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return f"{what} ({len(items):,}): {', '.join(items[:NAMED])}{more}"


def report_problems(name: str, problems: list[str]) -> None:
    """Raises one error for all problems of a data set, if there are any."""
    if problems:
        raise InputError(
            f"{name} cannot be used as it is:\n" + "\n".join(f"- {p}" for p in problems)
        )


def to_dataset(records: Records, config: DataConfig) -> Dataset:
    """Checks the rows, makes the splits that are not there, and reads the images if small.

    Images are held in memory when their side is at most 64 pixels and all together take at most
    2 GiB.

    Args:
        records: the rows.
        config: sizes, fractions and seed.

    Raises:
        ValueError: when the rows contradict each other, or miss files or classes.
        UnreadableImagesError: names all images that cannot be read.
    """
    report_problems(records.name, find_problems(records))
    records = make_splits(records, config)
    training = [records.paths[place] for place in np.flatnonzero(records.splits == "train")]
    size = config.image_size or natural_size(training, SMALL, LARGE)
    in_memory = size <= SMALL and len(records.paths) * 3 * size**2 <= MEMORY
    if not in_memory and (config.check or records.check) == "decode":
        check_images(records.paths)
    whole = Split(
        labels=torch.from_numpy(records.labels),
        index=torch.from_numpy(records.index),
        images=read_images(records.paths, size) if in_memory else None,
        paths=tuple(records.paths),
    )
    places = {part: np.flatnonzero(records.splits == part) for part in SPLITS}
    splits = {p: whole.take(torch.from_numpy(at)) for p, at in places.items() if len(at)}
    return Dataset(
        name=records.name,
        class_names=records.class_names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        image_size=size,
    )


def find_problems(records: Records) -> list[str]:
    """What is wrong with the rows, a sentence each; no file is opened."""
    if not records.paths:
        return ["there is no image in it"]
    problems = []
    seen = np.unique(records.labels)
    if len(seen) == 1:
        only = records.class_names[seen[0]]
        problems.append(f"all images are of one class, '{only}'; two or more are needed")
    for what, twins in _repeated(records).items():
        named = [
            f"{records.paths[rows[0]]} ({' and '.join(records.origin(row) for row in rows)})"
            for rows in twins
        ]
        problems.append(counted(what, named))
    odd = [repr(os.fsencode(path)) for path in records.paths if not _is_unicode(path)]
    if odd:
        problems.append(counted("files whose names are no UTF-8", odd))
    missing = find_missing(records.paths)
    if missing:
        named = [f"{records.paths[row]} ({records.origin(row)})" for row in missing]
        problems.append(counted("files that do not exist", named))
    return problems + _unlearnable(records)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def find_missing(paths: Sequence[str]) -> list[int]:
    """Places of the paths that name no file on disk; lists each folder once, opens no file."""
    folders: dict[str, list[int]] = defaultdict(list)
    files = [file_of(path) for path in paths]
    for place, file in enumerate(files):
        folders[os.path.dirname(file)].append(place)
    missing: list[int] = []
    for folder, places in folders.items():
        there: set[str] = set()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            there = {entry.name for entry in entries if entry.is_file()}
        missing += [place for place in places if os.path.basename(files[place]) not in there]
    return sorted(missing)


def make_splits(records: Records, config: DataConfig) -> Records:
    """Sets aside a test part when there is neither that nor a val part, and a val part if asked.

    The same share of each class goes, but at least one image for testing and never the last one
    for training; a warning names the classes that have nothing to be tested on.
    """
    splits = records.splits.astype("U5")
    wanted = []
    if not np.isin(("val", "test"), splits).any():
        wanted.append(("test", config.test_fraction, 1))
    if "val" not in splits and config.val_fraction:
        left = 1 - (config.test_fraction if wanted else 0)
        wanted.append(("val", config.val_fraction / left, 0))
    for part, fraction, least in wanted:
        rows = np.flatnonzero(splits == "train")
        labels = torch.from_numpy(records.labels[rows])
        aside = hold_out(labels, fraction, config.seed, least)
        if not (least or aside.any()):
            raise InputError(empty_part("val_fraction", config.val_fraction, labels))
        splits[rows[aside.numpy()]] = part
        without = np.setdiff1d(records.labels, records.labels[splits == part])
        if part == "test" and len(without):
            names = [records.class_names[c] for c in without]
            warnings.warn(
                f"{records.name}: a single image stays in the training part, so there is no "
                + counted("accuracy for the classes that have no other", names),
                stacklevel=2,
            )
    return replace(records, splits=splits)


def _repeated(records: Records) -> dict[str, list[list[int]]]:
    """Rows with the same path, by whether they lie in different splits: a test image learned by."""
    found: dict[str, list[list[int]]] = {}
    if len(set(records.paths)) == len(records.paths):
        return found
    rows = defaultdict(list)
    for row, path in enumerate(records.paths):
        rows[path].append(row)
    for places in rows.values():
        if len(places) > 1:
            across = len(set(records.splits[places].tolist())) > 1
            where = "in more than one part" if across else "more than once"
            found.setdefault(f"paths that stand {where}", []).append(places)
    return found


def _unlearnable(records: Records) -> list[str]:
    """Classes without a training image: some turn up in other splits, some nowhere."""
    trained = np.unique(records.labels[records.splits == "train"])
    problems = []
    unseen = np.flatnonzero(~np.isin(records.labels, trained)).tolist()
    if len(unseen):
        rows = [f"'{records.class_names[records.labels[r]]}' ({records.origin(r)})" for r in unseen]
        problems.append(
            counted("images of val or test with a label that no training image has", rows)
        )
    nowhere = np.setdiff1d(np.arange(len(records.class_names)), records.labels)
    if len(nowhere):
        names = [f"'{records.class_names[c]}'" for c in nowhere]
        problems.append(counted("classes without an image", names))
    return problems
