"""Checks a data set of images and masks as a whole before training."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtail.data.check import RARE, in_words, read_files
from longtail.data.duplicates import same_files
from longtail.data.problems import counted, shown
from longtail.data.progress import progress
from longtail.segmentation.counts import BadPairsError
from longtail.segmentation.dataset import absent_classes, read_pixels
from longtail.segmentation.layouts import Layout, PixelDataConfig, find_layout


@dataclass(frozen=True, eq=False)
class PixelFindings:
    """Result of checking a data set of images and masks.

    Args:
        name: name of the data set.
        class_names: name of each class; empty if the masks do not determine the classes.
        pixels: (N, C) pixels of each class in each image, for each split.
        ignored: share of the pixels that are ignored, for each split.
        problems: what prevents training or makes its result wrong, one sentence each.
        warnings: what may be unintended, or limits what the result says.
        checked: how the files were checked.
    """

    name: str
    class_names: tuple[str, ...]
    pixels: Mapping[str, NDArray[np.int64]]
    ignored: Mapping[str, float]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    checked: str

    def __str__(self) -> str:
        lines = [*map(self._split, self.pixels), f"files: {self.checked}"]
        return in_words(self.name, self.class_names, lines, self.warnings, self.problems)

    def _split(self, split: str) -> str:
        pixels = self.pixels[split]
        total = pixels.sum(0)
        most, least = int(total.argmax()), int(total.argmin())
        imbalance = f"{total[most] / total[least]:,.4g}" if total[least] else "n/a"
        return (
            f"{split}: {len(pixels):,} images; {100 * self.ignored[split]:.1f} % of the pixels "
            f"ignored; largest class {_share(total, most)} ({shown(self.class_names[most])}), "
            f"smallest {_share(total, least)} ({shown(self.class_names[least])}, in "
            f"{(pixels[:, least] > 0).sum():,} images), imbalance {imbalance}"
        )


def _share(total: NDArray[np.int64], c: int) -> str:
    return f"{100 * total[c] / max(1, total.sum()):.3g} %"


def check_pixels(config: PixelDataConfig, *, verbose: bool = True) -> PixelFindings:
    """Checks images and masks as training does at its start, but reports instead of raising.

    Every mask is read, every image is decoded, and images in two splits are found.

    Args:
        config: the source.
        verbose: whether progress is shown on stderr.

    Raises:
        InputError: when the source is unknown, images have no masks, or the values of the masks do
            not determine the classes.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with progress(f"reading the masks of {config.source}", None, verbose):
            try:
                layout, pixels, sizes = read_pixels(config)
                problems = []
            except BadPairsError as error:
                problems = error.by_reason()
                layout = find_layout(config)
                pixels, sizes = np.zeros((0, 0), np.int64), np.zeros((0, 2), np.int64)
    found = [str(warning.message) for warning in caught]
    problems += _read_images(layout, verbose)
    splits = {name: pairs for name, pairs in layout.splits.items() if pairs}
    files = f"{sum(map(len, splits.values())):,} images with masks read"
    if not len(pixels):
        names = layout.class_names
        return PixelFindings(layout.name, names, {}, {}, tuple(problems), (*found,), files)
    ends = np.cumsum([0, *map(len, splits.values())])
    rows = dict(zip(splits, map(slice, ends, ends[1:]), strict=True))
    by_split = {name: pixels[part] for name, part in rows.items()}
    area = sizes.prod(1)
    ignored = {n: 1 - float(pixels[part].sum() / area[part].sum()) for n, part in rows.items()}
    if absent := absent_classes(layout, pixels):
        problems.append(counted("classes without a pixel in the training split", absent))
    return PixelFindings(
        layout.name,
        layout.class_names,
        by_split,
        ignored,
        tuple(problems),
        (*found, *_too_few(by_split, layout.class_names)),
        files,
    )


def _read_images(layout: Layout, verbose: bool) -> list[str]:
    """Decodes all images; returns those that cannot be read, and those in several splits."""
    paths = [image for pairs in layout.splits.values() for image, _ in pairs]
    splits = [name for name, pairs in layout.splits.items() for _ in pairs]
    fingerprints, good, problems = read_files(paths, range(len(paths)), verbose)
    first = same_files(fingerprints, good)
    leaks = [f"{paths[first[i]]} and {paths[i]}" for i in good if splits[first[i]] != splits[i]]
    if leaks:
        problems.append(counted("images that are the same file in two splits", leaks))
    return problems


def _too_few(pixels: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> list[str]:
    """Classes in only a few images, which can hardly be learned or evaluated."""
    found = []
    for split, counts in pixels.items():
        images = (counts > 0).sum(0)
        rare = [f"{names[c]} ({images[c]})" for c in np.flatnonzero(images < RARE[0]).tolist()]
        if rare:
            found.append(counted(f"classes in fewer than {RARE[0]} {split} images", rare))
    return found
