"""A synthetic image tree with the real class counts: every file is a link to one of a few JPEGs."""

import json
import os
from collections import Counter
from hashlib import md5
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image

LINKS = 30_000  # of one file; file systems allow some 65,000

# Class counts of the training split, class names, and the available lists.
FILES = {
    "imagenet-lt": (
        "ImageNet_LT_train_class_counts.json",
        "ImageNet_LT_classnames.txt",
        "ImageNet_LT_train.txt",
        {"val": "ImageNet_LT_val.txt", "test": "ImageNet_LT_test.txt"},
    ),
    "inaturalist18": (
        "iNaturalist18_train_class_counts.json",
        "inat18_categories.json",
        "iNaturalist18_train.txt",
        {"test": "iNaturalist18_val.txt"},
    ),
}


def make_tree(name: str, root: Path, lists: Path, *, share: float, size: tuple[int, int]) -> int:
    """Makes images and lists under a root, as `longtail train NAME --data.root ROOT` reads them.

    Args:
        name: `imagenet-lt` or `inaturalist18`.
        root: a folder that is empty.
        lists: folder with the published lists, class names and class counts.
        share: share of each class's images in each split, rounded up, so that no class is lost.
        size: width and height of the images.

    Returns: images of all splits.
    """
    counts_file, names_file, train_file, others = FILES[name]
    root.mkdir(parents=True, exist_ok=True)
    (root / names_file).write_bytes((lists / names_file).read_bytes())
    rows: dict[str, list[tuple[str, int]]] = {train_file: []}
    folders: dict[int, str] = {}
    for file in others.values():
        labelled = [line.rsplit(" ", 1) for line in (lists / file).read_text().splitlines()]
        pairs = [(path, int(label)) for path, label in labelled]
        folders |= {label: os.path.dirname(path).replace("val/", "train/") for path, label in pairs}
        rows[file] = thinned(pairs, share)
    for label, count in enumerate(json.loads((lists / counts_file).read_text())):
        names = (md5(f"{label} {n}".encode()).hexdigest() for n in range(ceil(share * count)))
        rows[train_file] += [(f"{folders[label]}/{name}.jpg", label) for name in names]
    for file, pairs in rows.items():
        (root / file).write_text("".join(f"{path} {label}\n" for path, label in pairs))
    everything = [pair for pairs in rows.values() for pair in pairs]
    link_all(root, everything, size)
    return len(everything)


def thinned(pairs: list[tuple[str, int]], share: float) -> list[tuple[str, int]]:
    """The first images of each class, a share of them, at least one."""
    left = {label: ceil(share * n) for label, n in Counter(label for _, label in pairs).items()}
    kept = []
    for path, label in pairs:
        if left[label]:
            left[label] -= 1
            kept.append((path, label))
    return kept


def link_all(root: Path, rows: list[tuple[str, int]], size: tuple[int, int]) -> None:
    """Links each path to one of the JPEGs; images of a class share their colours."""
    sources = make_jpegs(root, max(8, ceil(len(rows) / LINKS)), size)
    made = set()
    used = Counter[Path]()
    for path, label in rows:
        target = root / path
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        source = sources[label % len(sources)]
        if used[source] >= LINKS:
            source = min(sources, key=lambda file: used[file])
        used[source] += 1
        os.link(source, target)


def make_jpegs(folder: Path, number: int, size: tuple[int, int], seed: int = 0) -> list[Path]:
    """JPEG files of smooth noise, quality 90: about 100 kB at 500x375, like photographs."""
    generator = np.random.default_rng(seed)
    files = []
    for n in range(number):
        coarse = generator.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        files.append(folder / f"source-{n:03d}.jpg")
        image.save(files[-1], quality=90)
    return files
