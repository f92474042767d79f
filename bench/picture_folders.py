"""Writes CIFAR-100-LT and the digits as folders of image files, as a user would have them.

python bench/picture_folders.py cifar100-lt FOLDER [--root DATA]
python bench/picture_folders.py digits-lt FOLDER
"""

import argparse
from pathlib import Path

from PIL import Image

from longtail.data import DataConfig, load


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("source", choices=["cifar100-lt", "digits-lt"])
    options.add_argument("folder", type=Path)
    options.add_argument("--root")
    given = options.parse_args()
    dataset = load(DataConfig(given.source, root=given.root))
    suffix, saved = ("jpg", {"quality": 95}) if given.source == "cifar100-lt" else ("png", {})
    for name, split in dataset.splits.items():
        assert split.images is not None
        for image, label, index in zip(split.images, split.labels, split.index, strict=True):
            path = given.folder / name / dataset.class_names[label] / f"{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, **saved)


if __name__ == "__main__":
    main()
