"""Writes data sets, or a subset of one, as folders of image files.

    python bench/picture_folders.py cifar100-lt FOLDER [--root DATA] [--every 5] [--most-tested 50]
    python bench/picture_folders.py digits-lt FOLDER
    python bench/picture_folders.py SOURCE_FOLDER FOLDER [--most 300]

`--every 5` takes every fifth class, `--most 300` at most 300 training images per class, drawn with
seed 0, so that rare classes keep all of theirs. Files of a folder are linked.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from longtail.data import DataConfig, Split, load


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("source")
    options.add_argument("folder", type=Path)
    options.add_argument("--root")
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--most", type=int)
    options.add_argument("--most-tested", type=int)
    given = options.parse_args()
    own = Path(given.source).is_dir()
    config = DataConfig(given.source, root=given.root)
    if own:  # nothing is decoded
        config.image_size, config.check = 224, "exists"
    dataset = load(config)
    for name, split in dataset.splits.items():
        most = given.most if name == "train" else given.most_tested
        for row in chosen(split, given.every, most):
            folder = given.folder / name / dataset.class_names[split.labels[row]]
            folder.mkdir(parents=True, exist_ok=True)
            if own:
                path = Path(split.paths[row])
                (folder / path.name).symlink_to(path)
                continue
            assert split.images is not None
            array = split.images[row].permute(1, 2, 0).numpy()
            jpeg = given.source.startswith("cifar")
            suffix, saved = ("jpg", {"quality": 95}) if jpeg else ("png", {})
            Image.fromarray(array).save(folder / f"{split.index[row]}.{suffix}", **saved)


def chosen(split: Split, every: int, most: int | None) -> list[int]:
    """Rows of every nth class, with at most a number of rows per class, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    rows: list[int] = []
    for label in range(0, int(split.labels.max()) + 1, every):
        members = (split.labels == label).nonzero().flatten()
        drawn = members[torch.randperm(len(members), generator=generator)]
        rows += sorted(drawn[: most or len(members)].tolist())
    return rows


if __name__ == "__main__":
    main()
