"""A folder of images, sorted into sub-folders."""

import os
import warnings
from pathlib import Path

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.formats import counted_by_suffix, suffix_of, why_refused
from longtail.data.layout import Layout, understand
from longtail.data.records import Records, class_order
from longtail.data.tree import Tree
from longtail.errors import InputError


def folder(config: DataConfig) -> Records:
    """A folder with a sub-folder of images per class, or train, val and test folders with such.

    Common variants of the folder names are recognised (`Training`, `valid`, `seg_train/seg_train`);
    see docs/data.md. Hidden and system folders are ignored; other files that are not used are
    counted in a warning. `index` is the index of an image in the sorted list of all.

    Raises:
        InputError: when there is no class folder, or the folders are ambiguous.
    """
    root = Path(os.path.abspath(config.source))
    tree = Tree(root)
    layout = understand(tree, config.depth)
    names = class_order([*(name for _, name in layout.folders.values()), *layout.empty])
    if not names:
        raise InputError(f"{root} must have a sub-folder of images for each class, it has none")
    number = {name: c for c, name in enumerate(names)}
    rows = sorted(
        (os.path.join(root, *parts, file), number[name], split)
        for parts, (split, name) in layout.folders.items()
        for file in tree.images[parts]
    )
    for text in [*layout.left_out, *_left_out(tree, layout)]:
        warnings.warn(f"{root}: left out {text}", stacklevel=2)
    for text in layout.doubts:
        warnings.warn(f"{root}: {text}", stacklevel=2)
    return Records(
        name=root.name,
        paths=[path for path, _, _ in rows],
        labels=np.array([label for _, label, _ in rows], dtype=np.int64),
        splits=np.array([split for _, _, split in rows], dtype="U5"),
        index=np.arange(len(rows)),
        class_names=names,
        origin=lambda row: rows[row][0],
        check="decode",
        notes=tuple(layout.notes),
    )


def _left_out(tree: Tree, layout: Layout) -> list[str]:
    """The unused files in and next to the class folders, and refused images anywhere, by suffix."""
    above = {parts[:end] for parts in layout.folders for end in range(len(parts))}
    unused = [name for parts in layout.folders for name in tree.others[parts]]
    unused += [
        name
        for parts, names in tree.others.items()
        for name in names
        if parts not in layout.folders and why_refused(suffix_of(name))
    ]
    unused += [name for parts in above.difference(layout.folders) for name in tree.images[parts]]
    if not unused:
        return []
    files = "1 file" if len(unused) == 1 else f"{len(unused):,} files"
    return [f"{files} outside the class folders or without an image: {counted_by_suffix(unused)}"]
