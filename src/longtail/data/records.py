"""A data set of image files: its rows, the checks before any file is read, and its splits."""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset, Split
from longtail.data.images import SMALL, check_images, check_remote, natural_size, read_images
from longtail.data.missing import find_missing, similar_file
from longtail.data.problems import counted, report_problems
from longtail.data.split_names import SPLITS
from longtail.data.stratified import empty_split, hold_out
from longtail.errors import InputError

MEMORY = 2 << 30  # largest number of bytes of images in memory


@dataclass(frozen=True, eq=False)
class Records:
    """The rows of a data set on disk.

    Args:
        name: name of the data set.
        paths: absolute path of each image.
        labels: (N,), class index of each image.
        splits: (N,), `train`, `val` or `test` for each image.
        index: (N,), index of each image in its source.
        class_names: name of each class.
        origin: location of row i, such as `birds.csv, line 7`.
        check: how files that stay on disk are checked by default.
        notes: how the source was understood if that is not obvious, one sentence each.
    """

    name: str
    paths: list[str]
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    index: NDArray[np.int64]
    class_names: tuple[str, ...]
    origin: Callable[[int], str]
    check: Literal["decode", "exists"]
    notes: tuple[str, ...] = ()


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: by value if all are whole numbers, else alphabetical.

    Examples:
        >>> class_order(["10", "9", "10"])
        ('9', '10')
        >>> class_order(["10", "9", "a"])
        ('10', '9', 'a')
    """
    distinct = set(names)
    if all(name.isdecimal() and str(int(name)) == name for name in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def to_dataset(records: Records, config: DataConfig) -> Dataset:
    """Checks the rows, makes missing splits, and reads the images if they are small.

    Images are held in memory if their side is at most 64 pixels and together they take at most
    2 GiB.

    Args:
        records: the rows.
        config: image size, fractions and seed.

    Raises:
        InputError: when rows contradict each other, or files or classes are missing.
        UnreadableImagesError: lists all images that cannot be read.
    """
    report_problems(records.name, find_problems(records))
    records = make_splits(records, config)
    training = [records.paths[i] for i in np.flatnonzero(records.splits == "train")]
    size = config.image_size or natural_size(training)
    in_memory = size <= SMALL and len(records.paths) * 3 * size**2 <= MEMORY
    if not in_memory:
        decode = (config.check or records.check) == "decode"
        (check_images if decode else check_remote)(records.paths)
    whole = Split(
        labels=torch.from_numpy(records.labels),
        index=torch.from_numpy(records.index),
        images=read_images(records.paths, size) if in_memory else None,
        paths=tuple(records.paths),
    )
    indices = {name: np.flatnonzero(records.splits == name) for name in SPLITS}
    splits = {name: whole.take(torch.from_numpy(i)) for name, i in indices.items() if len(i)}
    return Dataset(
        name=records.name,
        class_names=records.class_names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        image_size=size,
    )


def find_problems(records: Records) -> list[str]:
    """Problems of the rows, one sentence each; no file is opened."""
    if not records.paths:
        return ["it has no images"]
    problems = []
    seen = np.unique(records.labels)
    if len(seen) == 1:
        only = records.class_names[seen[0]]
        problems.append(f"all images are of one class, '{only}'; two or more are needed")
    for what, groups in _repeated(records).items():
        named = [
            f"{records.paths[rows[0]]} ({' and '.join(records.origin(row) for row in rows)})"
            for rows in groups
        ]
        problems.append(counted(what, named))
    invalid = [repr(os.fsencode(path)) for path in records.paths if not _is_unicode(path)]
    if invalid:
        problems.append(counted("file names that are not valid UTF-8", invalid))
    missing = find_missing(records.paths)
    if missing:
        named = [f"{records.paths[row]} ({records.origin(row)})" for row in missing]
        hint = similar_file(records.paths[missing[0]])
        problems.append(counted("files that do not exist", named) + hint)
    return problems + _unlearnable(records)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def make_splits(records: Records, config: DataConfig) -> Records:
    """Makes a test split if there is neither a test nor a val split, and a val split on request.

    The same fraction of each class is held out: at least one image for testing, and never the last
    one. A warning lists the classes that have no test image.
    """
    splits = records.splits.astype("U5")
    wanted = []
    if not np.isin(("val", "test"), splits).any():
        wanted.append(("test", config.test_fraction, 1))
    if "val" not in splits and config.val_fraction:
        left = 1 - (config.test_fraction if wanted else 0)
        wanted.append(("val", config.val_fraction / left, 0))
    for split, fraction, least in wanted:
        rows = np.flatnonzero(splits == "train")
        labels = torch.from_numpy(records.labels[rows])
        held_out = hold_out(labels, fraction, config.seed, least)
        if not (least or held_out.any()):
            raise InputError(empty_split("val_fraction", config.val_fraction, labels))
        splits[rows[held_out.numpy()]] = split
        without = np.setdiff1d(records.labels, records.labels[splits == split])
        if split == "test" and len(without):
            names = [records.class_names[c] for c in without]
            warnings.warn(
                f"{records.name}: "
                + counted("classes with a single image, which are not in the test split", names),
                stacklevel=2,
            )
    return replace(records, splits=splits)


def _repeated(records: Records) -> dict[str, list[list[int]]]:
    """Rows with the same path, grouped by whether they are in different splits."""
    found: dict[str, list[list[int]]] = {}
    if len(set(records.paths)) == len(records.paths):
        return found
    rows = defaultdict(list)
    for row, path in enumerate(records.paths):
        rows[path].append(row)
    for indices in rows.values():
        if len(indices) > 1:
            across = len(set(records.splits[indices].tolist())) > 1
            where = "in more than one split" if across else "more than once"
            found.setdefault(f"paths that are listed {where}", []).append(indices)
    return found


def _unlearnable(records: Records) -> list[str]:
    """Classes without a training image: those that occur in other splits, and those that do not."""
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
