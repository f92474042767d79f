"""Finds out which folders of a data set are splits and which are classes, by common conventions."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from longtail.data.formats import counted_by_suffix, suffix_of
from longtail.data.problems import counted
from longtail.data.split_names import SPLITS, split_named, words_of
from longtail.data.tree import Parts, Tree
from longtail.errors import InputError

PICTURES = frozenset(["image", "images", "img", "imgs", "jpegimages", "leftimg8bit"])
MASKS = frozenset(
    [
        "annotation",
        "annotations",
        "gt",
        "gtfine",
        "groundtruth",
        "label",
        "labels",
        "mask",
        "masks",
        "segmentationclass",
    ]
)

VOLUMES = frozenset(("batch", "chunk", "part", "volume"))  # a set of images in several folders


@dataclass
class Layout:
    """How the folders of a data set are understood.

    Args:
        folders: split and class name of the images in each folder.
        empty: names of the class folders without an image.
        notes: what is not obvious, one sentence each.
        left_out: what is not used although it may have been intended to, one sentence each.
        doubts: what may be understood wrongly, one sentence each.
    """

    folders: dict[Parts, tuple[str, str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def understand(tree: Tree, depth: int | None) -> Layout:
    """Finds splits and classes among the folders of a data set.

    Args:
        tree: the folders.
        depth: level of the folders that name the classes, from 1; None: found if it is clear.

    Raises:
        InputError: when the folders are for another task, or could be read in more than one way.
    """
    base = _descend(tree, ())
    for end in range(len(base) + 1):
        _refuse_other_tasks(tree, base[:end])
    splits = _splits(tree, base)
    layout = Layout()
    for end in range(len(base)):
        inside = [(*base[:end], name) for name in tree.children(base[:end])]
        _leave_out_empty_splits(layout, tree, inside, splits)
    if splits:
        inside = [(*base, name) for name in tree.children(base)]
        _leave_out_empty_splits(layout, tree, inside, splits)
        beside = sorted(set(tree.full(base)).difference(splits.values()))
        if beside:
            layout.left_out.append(counted("folders next to train, val and test", beside))
    elif per_class := _splits_below_classes(tree, base):
        layout.folders = per_class
        layout.notes.append("the class folders contain a folder for each split")
        inside = [
            (*base, top, name) for top in tree.full(base) for name in tree.children((*base, top))
        ]
        _leave_out_empty_splits(layout, tree, inside, {split for split, _ in per_class.values()})
        _add_empty(layout, tree, base, 1)
        return layout
    else:
        layout.doubts += _held_out_among_classes(tree, base)
    tops = {split: _descend(tree, (*base, name)) for split, name in splits.items()}
    tops = tops or {"train": base}
    for split, top in tops.items():
        _refuse_other_tasks(tree, top)
        if top != ((split,) if splits else ()):
            layout.notes.append(f"{split} is read from {'/'.join(top)}")
    _refuse_unsorted(tree, tops["train"])
    depth = depth or _depth(tree, tops["train"])
    for split, top in tops.items():
        names = {name for s, name in layout.folders.values() if s == "train"}
        if split != "train" and _is_unlabelled(tree, top, names):
            layout.left_out.append(
                f"{split} images without class folders ({tree.total(*top):,}): {'/'.join(top)}"
            )
        else:
            _add_classes(layout, tree, top, split, depth)
    return layout


def _descend(tree: Tree, parts: Parts) -> Parts:
    """The folder inside those that only contain it; not a split, unless in one."""
    while not tree.images[parts]:
        full = tree.full(parts)
        if len(full) != 1 or not tree.full((*parts, full[0])):
            break
        if split_named(full[0]) and parts[-1:] != (full[0],):
            break
        parts = (*parts, full[0])
    return parts


def _splits(tree: Tree, base: Parts) -> dict[str, str]:
    """The folder of each split, if the folders are splits rather than classes."""
    full = tree.full(base)
    words = [set(words_of(name)) for name in full]
    shared = frozenset(set.intersection(*words)) if len(words) > 1 else frozenset()
    named = defaultdict(list)
    for name in full:
        if split := split_named(name, shared):
            named[split].append(name)
    found = {split: named[split] for split in SPLITS if split in named}
    sorted_in = [name for names in found.values() for name in names if tree.full((*base, name))]
    only_splits = sum(map(len, found.values())) == len(full)
    # A single folder `train` without folders in it is a class of trains.
    if not sorted_in and len(found) < 2:
        return {}
    if "train" not in found:
        if not only_splits:
            return {}
        beside = " and ".join(full)
        raise InputError(f"{tree.root} has no folder train with images next to {beside}")
    for split, names in found.items():
        if len(names) > 1:
            raise InputError(
                f"{tree.root} has several folders for the split {split}: {', '.join(names)}; "
                "move all but one of them away"
            )
    return {split: names[0] for split, names in found.items()}


def _leave_out_empty_splits(
    layout: Layout, tree: Tree, folders: Collection[Parts], splits: Collection[str]
) -> None:
    """Leaves out those of some folders that are named as a split and have no image.

    Args:
        layout: to which they are added.
        tree: the folders.
        folders: folders next to each other, or those in the class folders.
        splits: the splits that have images.

    Raises:
        InputError: when such a folder has images of a format that is not read.
    """
    full = [set(words_of(parts[-1])) for parts in folders if tree.total(*parts)]

    def is_split(name: str) -> bool:
        shared = frozenset(set.intersection(set(words_of(name)), *full))
        return split_named(name, shared) is not None

    empty = [parts for parts in folders if not tree.total(*parts) and is_split(parts[-1])]
    refused = {
        parts: names
        for parts in empty
        if (names := [name for name in tree.refused(parts) if suffix_of(name) != ".svg"])
    }
    if refused:  # an SVG file may as well be a plot of the data
        named = counted("folders of splits without an image that can be read", _paths(refused))
        files = [name for names in refused.values() for name in names]
        raise InputError(f"{tree.root} has {named}; they have {counted_by_suffix(files)}")
    if empty:
        made = "" if {"val", "test"}.intersection(splits) else "; a test split is made from train"
        layout.left_out.append(counted("folders of splits without an image", _paths(empty)) + made)


def _paths(folders: Iterable[Parts]) -> list[str]:
    return ["/".join(parts) for parts in folders]


def _held_out_among_classes(tree: Tree, base: Parts) -> list[str]:
    """Folders named val or test that are not read as splits, since there is no folder train.

    Raises:
        InputError: when such a folder has folders named as the classes next to it.
    """
    names = tree.full(base)
    held_out = [name for name in names if split_named(name) in ("val", "test")]
    for name in held_out:
        same = sorted(set(tree.full((*base, name))).intersection(names))
        if same:
            raise InputError(
                f"{tree.root.joinpath(*base)} has {counted('class folders', same)}, next to {name} "
                f"and in it: move those next to {name} into a folder train"
            )
    return [f"{name} is not read as a split, since there is no folder train" for name in held_out]


def _splits_below_classes(tree: Tree, base: Parts) -> dict[Parts, tuple[str, str]]:
    """Split and class of each folder if every class folder has a folder per split."""
    found: dict[Parts, tuple[str, str]] = {}
    for name in tree.full(base):
        top = (*base, name)
        inside = {child: split_named(child) for child in tree.full(top)}
        if tree.images[top] or "train" not in inside.values() or None in inside.values():
            return {}
        for child, split in inside.items():
            found |= {folder: (str(split), name) for folder in tree.below((*top, child))}
    return found


def _refuse_other_tasks(tree: Tree, top: Parts) -> None:
    """Rejects images with masks or boxes, which are not for classification."""
    children = {name.casefold(): name for name in tree.children(top)}
    pictures = [name for key, name in children.items() if key in PICTURES]
    masks = [name for key, name in children.items() if key in MASKS]
    if not pictures or not masks or not tree.total(*top, pictures[0]):
        return
    where = f"{tree.root.joinpath(*top)} has the folders {pictures[0]} and {masks[0]}"
    if tree.total(*top, masks[0]):
        raise InputError(f"{where}: images with masks are trained on with --task segmentation")
    inside = tree.full((*top, pictures[0]))
    if not any(not split_named(c) or tree.full((*top, pictures[0], c)) for c in inside):
        raise InputError(
            f"{where}: these look like annotations of objects in images (detection); "
            "classification needs a folder for each class, or a table of paths and labels"
        )


def _refuse_unsorted(tree: Tree, top: Parts) -> None:
    """Rejects a training folder whose images are not sorted into class folders."""
    names = tree.full(top)
    flat = not any(tree.full((*top, name)) for name in names)
    words = {frozenset(words_of(name)) for name in names}
    numbered = len(words) == 1 and bool(VOLUMES.intersection(*words))
    if not tree.total(*top) or (names and not (flat and (len(names) == 1 or numbered))):
        return
    beside = tree.full(top[:-1]) if top else []
    files = [name for folder in (top, top[:-1], ()) for name in tree.others[folder]]
    tables = [name for name in files if suffix_of(name) in (".csv", ".tsv", ".parquet")]
    hint = f"; if {tables[0]} has the labels, name that file as DATA" if tables else ""
    if any(set(words_of(name)) & (MASKS | {f"{top[-1].casefold()}annot"}) for name in beside):
        hint = "; images with masks are trained on with --task segmentation"
    count = tree.total(*top)
    raise InputError(
        f"{tree.root.joinpath(*top)} must have a sub-folder of images for each class, it has "
        f"{count:,} image{'s' * (count != 1)} in {', '.join(names) or 'no sub-folder'}{hint}"
    )


def _depth(tree: Tree, top: Parts) -> int:
    """Level of the class folders, if it is clear."""
    names = tree.full(top)
    inside = {name: tree.full((*top, name)) for name in names}
    if any(tree.images[(*top, name)] for name in names) or all(
        len(folders) == 1 for folders in inside.values()
    ):
        return 1
    second = [f"{name}/{folder}" for name, folders in inside.items() for folder in folders]
    raise InputError(
        f"the images of {tree.root.joinpath(*top)} are two or more folders deep. Set --data.depth "
        f"to the level that names the class: 1 for {counted('classes', names)}; or 2 for "
        f"{counted('folders', second)}"
    )


def _is_unlabelled(tree: Tree, top: Parts, known: set[str]) -> bool:
    """Whether the images of a split are in no class folder, or in one folder for all."""
    full = tree.full(top)
    return bool(tree.total(*top)) and (not full or (len(full) == 1 and full[0] not in known))


def _add_classes(layout: Layout, tree: Tree, top: Parts, split: str, depth: int) -> None:
    """Adds the class folders of a split."""
    level = len(top) + depth
    below = [parts for parts in tree.below(top) if tree.images[parts] and parts != top]
    above = ["/".join(parts) for parts in below if len(parts) < level]
    if above:
        raise InputError(
            f"--data.depth {depth} must not exceed the level of any image folder of {tree.root}; "
            + counted("folders above it", above)
        )
    layout.folders |= {parts: (split, parts[level - 1]) for parts in below}
    deeper = sorted({"/".join(parts[len(top) :]) for parts in below if len(parts) > level})
    if deeper:
        what = f"{split} images in folders below a class folder belong to that class"
        layout.notes.append(counted(what, deeper))
    _add_empty(layout, tree, top, depth)
    if depth == 1:
        return
    parents: Mapping[str, set[Parts]] = defaultdict(set)
    for parts in below:
        parents[parts[level - 1]].add(parts[: level - 1])
    shared = sorted(name for name, found in parents.items() if len(found) > 1)
    if shared:
        what = f"{split} folders of the same name in several folders are one class"
        layout.notes.append(counted(what, shared))


def _add_empty(layout: Layout, tree: Tree, top: Parts, depth: int) -> None:
    """Adds the class folders without an image; folders of other files are left out."""
    for name in tree.children(top):
        parts = (*top, name)
        no_class = depth > 1 and not tree.children(parts)
        if no_class or tree.has_only_other_files(parts):
            layout.left_out.append(f"folder without an image: {'/'.join(parts)}")
        elif depth > 1:
            _add_empty(layout, tree, parts, depth - 1)
        elif not tree.total(*parts):
            layout.empty.append(name)
