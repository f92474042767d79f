"""Matching of images and masks in users' folders."""

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from longtail.data import files_below, images_below, is_image
from longtail.data.layout import MASKS, PICTURES
from longtail.data.problems import counted
from longtail.data.split_names import SPLITS, split_named
from longtail.errors import InputError

PairFiles = tuple[str, str]  # files of an image and of its mask
Folders = tuple[Path, Path]  # of images, and of their masks
AFFIX = re.compile(
    r"[ _.-]+(mask|masks|label|labels|labelids|gt|seg|segmentation|annotation|annot|l)$", re.I
)
IMAGE_AFFIX = re.compile(r"[ _.-]+(image|img|rgb|sat|input)$", re.I)


def split_folders(root: Path) -> dict[str, Folders]:
    """Folders of the images and masks of each split; empty if there are none.

    They are called `images` and `masks`, or other common names (`img`, `labels`, `annotations`,
    ...), and are above or below the folders of the splits (`train`, `valid`, ...). A split for
    testing without a folder of masks is left out, with a warning.

    Raises:
        InputError: when the folders are ambiguous.
    """
    images, masks = _splits(root, PICTURES), _splits(root, MASKS)
    bare = [split for split in images if split not in masks and split != "train"]
    if not masks or not images:
        return {}
    for split in bare:
        warnings.warn(f"{root}: left out {split}, which has no masks", stacklevel=2)
    return {
        split: (images[split], masks.get(split, root / "masks" / split))
        for split in SPLITS
        if split in images and split not in bare
    }


def _splits(root: Path, words: frozenset[str]) -> dict[str, Path]:
    """The folder of images or masks of each split, such as `masks/train` or `train/masks`."""
    found: dict[str, list[Path]] = defaultdict(list)
    for outer in _folders(root):
        for inner in _folders(outer):
            pair = [(outer, inner), (inner, outer)]
            for kind, split in pair:
                if kind.name.casefold() in words and (name := split_named(split.name)):
                    found[name].append(inner)
    return {split: _only(root, split, folders) for split, folders in found.items()}


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _only(root: Path, split: str, folders: Sequence[Path]) -> Path:
    """The one of several folders that contains images."""
    full = [path for path in folders if any(map(is_image, files_below(path)))]
    folders = full or folders
    if len(folders) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in folders)
        raise InputError(
            f"{root} has several folders for {split}: {names}; move all but one of them away"
        )
    return folders[0]


def match_masks(root: Path, folders: dict[str, Folders]) -> dict[str, list[PairFiles]]:
    """The images of each split with their masks.

    The mask of `NAME.jpg` is an image file called `NAME`, `NAME.jpg`, `NAME_mask` or similar, in
    the same place below the folder of the masks.

    Raises:
        InputError: lists the images without a mask, with several masks, or with the mask of another
            image.
    """
    problems: dict[str, list[str]] = defaultdict(list)
    pairs = {split: _match(*paths, problems) for split, paths in folders.items()}
    if problems:
        images, masks = next(iter(folders.values()))
        some = sorted(Path(f).name for f in files_below(masks) if is_image(f))[:3]
        there = f"{masks} has {', '.join(some)}, ..." if some else f"{masks} has no image files"
        raise InputError(
            f"{root} cannot be used: "
            + "; ".join(counted(what, found) for what, found in problems.items())
            + f". The mask of NAME.jpg in {images} must be NAME.png or NAME_mask.png; {there}"
        )
    return pairs


def _match(images: Path, masks: Path, problems: dict[str, list[str]]) -> list[PairFiles]:
    """Images below a folder, sorted, with their masks; adds to the problems."""
    files = images_below(images)
    ways = [_by_name(masks), _by_name(masks, AFFIX)]
    used: dict[Path, Path] = {}
    pairs = []
    for file in files:
        place = file.relative_to(images).parent
        keys = [(place, file.stem), (place, file.name), (place, IMAGE_AFFIX.sub("", file.stem))]
        found = next((way[key] for way in ways for key in keys if key in way), [])
        name = file.relative_to(images.parent).as_posix()
        if not found:
            problems["images without a mask"].append(name)
        elif len(found) > 1:
            several = ", ".join(mask.name for mask in found)
            problems["images with several masks"].append(f"{name} ({several})")
        elif found[0] in used:
            both = f"{used[found[0]].name} and {file.name} ({found[0].name})"
            problems["images with the same mask"].append(both)
        else:
            used[found[0]] = file
            pairs.append((str(file), str(found[0])))
    return pairs


def _by_name(
    masks: Path, affix: re.Pattern[str] | None = None
) -> dict[tuple[Path, str], list[Path]]:
    """Mask files by place and name, without an affix if they have one."""
    found: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in images_below(masks):
        name = path.stem if affix is None else affix.sub("", path.stem)
        if affix is None or name != path.stem:
            found[path.relative_to(masks).parent, name].append(path)
    return found
