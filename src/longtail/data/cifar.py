"""Long-tailed CIFAR-10 and CIFAR-100."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset, Split
from longtail.data.images import resize_images
from longtail.data.longtailed import long_tailed_counts, long_tailed_subset
from longtail.data.stratified import cut_validation
from longtail.errors import InputError

IMBALANCE = 100


def cifar10_lt(config: DataConfig) -> Dataset:
    """Long-tailed CIFAR-10: 12,406 training images at imbalance 100, 10,000 for testing."""
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", CIFAR10, config)


def cifar100_lt(config: DataConfig) -> Dataset:
    """Long-tailed CIFAR-100: 10,847 training images at imbalance 100, 10,000 for testing."""
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", CIFAR100, config)


def _cifar(name: str, reader: Any, config: DataConfig) -> Dataset:
    """A subset of CIFAR; with seed 0, that of the long-tailed benchmarks.

    `index` is the index of an image in the original order of its split.

    Raises:
        InputError: when files are missing and cannot be downloaded; it says where to put them.
    """
    root = Path(config.root or "data")
    train, test = _fetch(name, reader, root)
    size = config.image_size or 32
    labels = torch.tensor(train.targets)
    names = tuple(train.classes)
    n_max = int(torch.bincount(labels).min())
    imbalance = IMBALANCE if config.imbalance is None else config.imbalance
    counts = long_tailed_counts(len(names), n_max, imbalance, config.imbalance_type)
    chosen = _split(f"{name}/train", train, long_tailed_subset(labels, counts, config.seed), size)
    kept, val = cut_validation(chosen, config.val_fraction, config.seed)
    whole_test = _split(f"{name}/test", test, torch.arange(len(test)), size)
    return Dataset(f"{name}-lt", names, kept, val, whole_test, size)


def _split(name: str, data: Any, indices: Tensor, size: int) -> Split:
    images = torch.from_numpy(data.data[indices.numpy()]).permute(0, 3, 1, 2).contiguous()
    return Split(
        labels=torch.tensor(data.targets)[indices],
        index=indices,
        images=resize_images(images, size),
        paths=tuple(f"{name}/{i}" for i in indices.tolist()),
    )


def _fetch(name: str, reader: Any, root: Path) -> tuple[Any, Any]:
    """Training and test split read by torchvision, which downloads missing files."""
    try:
        return reader(root, download=True), reader(root, train=False)
    except (OSError, RuntimeError, EOFError) as error:
        folder = root / reader.base_folder
        files = [file for file, _ in reader.train_list + reader.test_list]
        files.append(reader.meta["filename"])
        absent = [file for file in files if not (folder / file).is_file()]
        state = f"missing: {', '.join(absent)}" if absent else "present, but not the original files"
        raise InputError(
            f"{name}-lt needs the files of {name.upper()} in {os.path.abspath(root)}, and they "
            f"could not be downloaded ({error}). Put one of these there:\n"
            f"  {reader.filename}, the archive from {reader.url}\n"
            f"  {reader.base_folder}/, the unpacked archive ({state})\n"
            f"or set root to a folder that contains one of them."
        ) from error
