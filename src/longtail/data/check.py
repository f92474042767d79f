"""Checks a data set as a whole before training."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset
from longtail.data.duplicates import LIMIT, Fingerprints, same_files, similar_pairs
from longtail.data.images import UnreadableImagesError, for_each_file
from longtail.data.load import read_source
from longtail.data.lookalikes import look_alikes
from longtail.data.missing import find_missing
from longtail.data.problems import counted, shown
from longtail.data.progress import progress
from longtail.data.reading import refused
from longtail.data.records import Records, find_problems, make_splits
from longtail.data.repeats import Repeats
from longtail.data.split_names import SPLITS

RARE = (5, 20)  # classes below 5 images can hardly be learned; "few" in the benchmarks is below 20
FEW_TESTS = 3  # test images of a class that say nothing about its accuracy
SMALL_SPLIT = 100  # images: accuracy is then known to about 10 points
CLASSES = 8  # names that are shown

Counts = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Findings:
    """Result of checking a data set.

    Args:
        name: name of the data set.
        class_names: name of each class.
        counts: (C,) images per class for each split.
        problems: what prevents training or makes its result wrong, one sentence each.
        warnings: what may be unintended, or limits what the result says.
        notes: how the source was understood.
        checked: how the files were checked.
    """

    name: str
    class_names: tuple[str, ...]
    counts: Mapping[str, NDArray[np.int64]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    checked: str

    def __str__(self) -> str:
        lines = [f"note: {note}" for note in self.notes]
        lines += [self._split(split) for split in self.counts]
        lines.append(f"files: {self.checked}")
        return in_words(self.name, self.class_names, lines, self.warnings, self.problems)

    def _split(self, split: str) -> str:
        counts = self.counts[split]
        most, least = int(counts.argmax()), int(counts.argmin())
        imbalance = f"{counts[most] / counts[least]:.4g}" if counts[least] else "n/a"
        rare = ", ".join(f"{(counts < n).sum():,} below {n}" for n in RARE)
        return (
            f"{split}: {counts.sum():,} images; largest class {counts[most]:,} "
            f"({shown(self.class_names[most])}), smallest {counts[least]:,} "
            f"({shown(self.class_names[least])}), imbalance {imbalance}; "
            f"classes with few images: {rare}"
        )


def in_words(
    name: str,
    class_names: Sequence[str],
    lines: Sequence[str],
    warnings: Sequence[str],
    problems: Sequence[str],
) -> str:
    """The result of a check as text, line by line.

    Args:
        name: name of the data set.
        class_names: names of the classes; empty if they are unknown.
        lines: what the data set is and how it was checked.
        warnings: one sentence each.
        problems: one sentence each.
    """
    more = ", ..." if len(class_names) > CLASSES else ""
    names = ", ".join(map(shown, class_names[:CLASSES])) or "unknown"
    found = [f"warning: {warning}" for warning in warnings]
    found += [f"problem: {problem}" for problem in problems]
    classes = f"{name}: {len(class_names):,} classes: {names}{more}"
    return "\n".join([classes, *lines, *(found or ["no problem found"])])


def check_source(config: DataConfig, *, verbose: bool = True) -> Findings:
    """Checks a data set as training does at its start, but reports instead of raising.

    Image files are decoded and compared with each other if `config.check` is `decode`, which is
    the default for folders and tables; for list files and shards only existence is checked.

    Args:
        config: the source.
        verbose: whether progress is shown on stderr.

    Raises:
        InputError: when the source is unknown, or its folders, lists or tables cannot be used.

    Examples:
        >>> print(check_source(DataConfig("digits-lt", imbalance=10), verbose=False))
        digits-lt: 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, ...
        train: 544 images; largest class 134 (0), smallest 13 (9), imbalance 10.31; classes with \
few images: 0 below 5, 2 below 20
        test: 400 images; largest class 40 (0), smallest 40 (0), imbalance 1; classes with few \
images: 0 below 5, 0 below 20
        files: none, the images are in memory
        no problem found
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with progress(f"reading {config.source}", None, verbose and os.path.exists(config.source)):
            source = read_source(config)
            records = source if isinstance(source, Records) else None
            problems = find_problems(records) if records else []
            if records and records.paths:
                records = make_splits(records, config)
    found = [str(warning.message) for warning in caught]
    checked = "none, the images are in memory"
    if records is not None:
        counts = _counts(records.splits, records.labels, len(records.class_names))
        checked = f"{len(records.paths):,} exist" if not problems else f"{len(records.paths):,}"
        if (config.check or records.check) == "decode" and records.paths:
            broken, repeated, checked = _read_all(records, verbose)
            problems += broken
            found += repeated
        else:
            problems += _unreadable(refused(records.paths))
    else:
        assert isinstance(source, Dataset)
        labels = {name: split.labels.numpy() for name, split in source.splits.items()}
        counts = {n: np.bincount(y, minlength=source.num_classes) for n, y in labels.items()}
        splits = source.splits.values()
        if files := [path for split in splits if split.images is None for path in split.paths]:
            missing, failures = find_missing(files), refused(files)
            there = len(files) - len(missing) - len(failures)
            checked = f"{there:,} of {len(files):,} exist"
            problems += _unreadable(failures)
            if missing:
                named = [files[row] for row in missing]
                problems.append(counted("files that do not exist", named))
    if alike := look_alikes(source.class_names):
        problems.append(counted("classes whose names look alike", alike))
    return Findings(
        name=source.name,
        class_names=source.class_names,
        counts=counts,
        problems=tuple(problems),
        warnings=(*found, *_too_small(counts, source.class_names)),
        notes=records.notes if records else (),
        checked=checked,
    )


def _unreadable(failures: Sequence[tuple[str, str]]) -> list[str]:
    """The problem of files, with reasons, that cannot be read, if there are any."""
    named = [f"{path}: {reason}" for path, reason in failures]
    return [counted("images that cannot be read", named)] if named else []


def _counts(splits: NDArray[np.str_], labels: NDArray[np.int64], num_classes: int) -> Counts:
    """Images per class in each split that has any."""
    counts = {s: np.bincount(labels[splits == s], minlength=num_classes) for s in SPLITS}
    return {split: count for split, count in counts.items() if count.sum()}


def _read_all(records: Records, verbose: bool) -> tuple[list[str], list[str], str]:
    """Decodes all files and compares them; returns problems, warnings and a description."""
    missing = set(find_missing(records.paths))
    there = [row for row in range(len(records.paths)) if row not in missing]
    fingerprints, good, problems = read_files(records.paths, there, verbose)
    repeats = Repeats(records)
    first = same_files(fingerprints, good)
    copies = good[first[good] != good]
    repeats.add(first[copies], copies)
    problems += repeats.named("the same file", across=True)
    found = repeats.named("the same file", across=False)
    originals = good[first[good] == good]
    checked = f"{len(there):,} of {len(records.paths):,} exist, {len(good):,} decoded"
    if len(originals) > LIMIT:
        return problems, found, f"{checked}; only identical ones searched for, not similar ones"
    near = Repeats(records)
    with progress("comparing images", len(originals), verbose) as done:
        for pairs in similar_pairs(fingerprints, originals, done):
            near.add(*pairs)
    found += near.named("nearly the same picture", across=True)
    found += near.named("nearly the same picture", across=False)
    return problems, found, f"{checked} and compared"


def read_files(
    paths: Sequence[str], rows: Sequence[int], verbose: bool
) -> tuple[Fingerprints, NDArray[np.int64], list[str]]:
    """Decodes some files: fingerprints of all rows, rows that could be read, and problems."""
    fingerprints, chosen = Fingerprints.empty(len(paths)), [paths[row] for row in rows]
    problems, failed = list[str](), set[str]()
    with progress("reading images", len(chosen), verbose) as done:

        def read(i: int) -> None:
            try:
                fingerprints.read(rows[i], chosen[i])
            finally:
                done(1)

        try:
            for_each_file(chosen, read)
        except UnreadableImagesError as error:
            failed = {path for path, _ in error.failures}
            named = [f"{path}: {reason}" for path, reason in error.failures]
            problems.append(counted("images that cannot be read", named))
    good = np.array([row for row in rows if paths[row] not in failed], dtype=np.int64)
    return fingerprints, good, problems


def _too_small(counts: Counts, names: Sequence[str]) -> list[str]:
    """Splits and classes with too few images to evaluate."""
    found = []
    for split in ("val", "test"):
        if split not in counts:
            continue
        total = int(counts[split].sum())
        if total < SMALL_SPLIT:
            points = math.ceil(100 * min(0.5, 0.98 / math.sqrt(total)))
            found.append(
                f"the {split} split has {total:,} images: its accuracy is only known to about "
                f"{points} percentage points"
            )
        rows = np.flatnonzero(counts[split] <= FEW_TESTS)
        if len(rows):
            named = [f"{names[c]} ({counts[split][c]})" for c in rows.tolist()]
            found.append(counted(f"classes with {FEW_TESTS} {split} images or fewer", named))
    return found
