"""A look at a whole source before any training: class counts, missing files, broken images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset
from longtail.data.images import UnreadableImagesError, check_images
from longtail.data.load import read_source
from longtail.data.missing import find_missing
from longtail.data.problems import counted
from longtail.data.records import Records, find_problems, make_splits
from longtail.data.split_names import SPLITS

RARE = (5, 20)  # the groups "few" of the benchmarks begin below 20; below 5, little can be learned


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in a source.

    Args:
        name: of the data set.
        class_names: name of each class.
        counts: (C,) images of each class, for each part that there is.
        problems: what makes a training impossible or wrong, a sentence each.
        checked: what was done to find broken images, in words.
    """

    name: str
    class_names: tuple[str, ...]
    counts: Mapping[str, NDArray[np.int64]]
    problems: tuple[str, ...]
    checked: str

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.class_names):,} classes"]
        lines += [self._part(part) for part in self.counts]
        lines.append(f"files: {self.checked}")
        lines += [f"problem: {problem}" for problem in self.problems] or ["no problem found"]
        return "\n".join(lines)

    def _part(self, part: str) -> str:
        counts = self.counts[part]
        most, least = int(counts.argmax()), int(counts.argmin())
        imbalance = f"{counts[most] / counts[least]:.4g}" if counts[least] else "n/a"
        rare = ", ".join(f"{(counts < n).sum():,} below {n}" for n in RARE)
        return (
            f"{part}: {counts.sum():,} images; largest class {counts[most]:,} "
            f"({self.class_names[most]}), smallest {counts[least]:,} ({self.class_names[least]}), "
            f"imbalance {imbalance}; classes with few images: {rare}"
        )


def check_source(config: DataConfig) -> Findings:
    """Looks at all of a source, as a training would at its start, and reports instead of raising.

    Image files are decoded when `config.check` is `decode`, or is not given and the source's own
    habit is to (folders and tables); of list files only the existence is looked at by default.

    Raises:
        ValueError: when the source is not known, or its lists or tables cannot be read at all.

    Example:
        >>> print(check_source(DataConfig("digits-lt", imbalance=10)))
        digits-lt: 10 classes
        train: 544 images; largest class 134 (0), smallest 13 (9), imbalance 10.31; classes with \
few images: 0 below 5, 2 below 20
        test: 400 images; largest class 40 (0), smallest 40 (0), imbalance 1; classes with few \
images: 0 below 5, 0 below 20
        files: none, the images are in memory
        no problem found
    """
    source = read_source(config)
    if isinstance(source, Dataset):
        labels = {part: split.labels.numpy() for part, split in source.splits.items()}
        counts = {p: np.bincount(y, minlength=source.num_classes) for p, y in labels.items()}
        return Findings(
            source.name, source.class_names, counts, (), "none, the images are in memory"
        )
    problems = find_problems(source)
    checked = f"{len(source.paths):,} looked for"
    if (config.check or source.check) == "decode":
        broken, decoded = _broken(source)
        problems += broken
        checked += f", {decoded:,} decoded"
    return Findings(
        source.name, source.class_names, _counts(source, config), tuple(problems), checked
    )


def _counts(source: Records, config: DataConfig) -> dict[str, NDArray[np.int64]]:
    """Images of each class in the splits that a training would use."""
    splits = make_splits(source, config).splits if source.paths else source.splits
    counts = {
        part: np.bincount(source.labels[splits == part], minlength=len(source.class_names))
        for part in SPLITS
    }
    return {part: count for part, count in counts.items() if count.sum()}


def _broken(source: Records) -> tuple[list[str], int]:
    """What is wrong with the files that are there, and how many of them there are."""
    missing = set(find_missing(source.paths))
    there = [path for row, path in enumerate(source.paths) if row not in missing]
    try:
        check_images(there)
    except UnreadableImagesError as error:
        named = [f"{path}: {reason}" for path, reason in error.failures]
        return [counted("images that cannot be read", named)], len(there)
    return [], len(there)
