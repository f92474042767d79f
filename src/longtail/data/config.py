"""The settings that say where the images come from."""

from dataclasses import dataclass
from typing import Literal

from longtail.data.longtailed import Kind
from longtail.errors import InputError


@dataclass
class DataConfig:
    """Where the images come from, and how they are parted.

    Args:
        source: a built-in source (`digits-lt`, `cifar10-lt`, `cifar100-lt`, `imagenet-lt`,
            `places-lt`, `inaturalist18`), a folder with a sub-folder for each class, a folder of
            shards (`longtail data shard`), or a .csv or .parquet table.
        root: cifar: folder of the data files (`data` when not given). List files: the image root.
            Tables: folder that relative paths start from (that of the table when not given).
        lists: list files: folder of the lists and class names (`root` when not given).
        imbalance: digits, cifar: largest over smallest class count of the training part, 1 or
            more; 30 for digits and 100 for cifar when not given.
        imbalance_type: digits, cifar: how the class counts fall from the largest to the smallest.
        image_size: side in pixels that images are brought to; when not given, that of the
            source: its own for small images (up to 64 pixels), else 224.
        path_column: table: column with the image files.
        label_column: table: column with the classes.
        split_column: table: column with train, val or test; when not given, `split` if there is
            such a column.
        test_fraction: share of each class that is kept for testing where the source has neither a
            test nor a val part of its own, between 0 and 1.
        val_fraction: share of each class that is kept for validation where the source has no such
            part of its own; 0 makes none.
        seed: decides which images a subset or a made split takes; apart from the seed of the run.
        check: `decode` reads every image before the training begins and names all that are
            broken, `exists` looks only whether each file is there. When not given: `decode` for
            folders and tables, `exists` for list files and shards. Images held in memory are
            always decoded.
        workers: processes that read large images; one for each processor, at most 8, when not
            given.

    Raises:
        ValueError: when a value is out of its range.
    """

    source: str
    root: str | None = None
    lists: str | None = None
    imbalance: float | None = None
    imbalance_type: Kind = "exponential"
    image_size: int | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    test_fraction: float = 0.2
    val_fraction: float = 0.0
    seed: int = 0
    check: Literal["decode", "exists"] | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the values that no type can check."""
        if self.imbalance is not None and not self.imbalance >= 1:
            raise InputError(f"imbalance must be 1 or more, got {self.imbalance}")
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size must be 1 or more pixels, got {self.image_size}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}")
        if not 0 <= self.val_fraction < 1 - self.test_fraction:
            raise InputError(
                "val_fraction must be 0 or more and leave images to train on beside test_fraction "
                f"{self.test_fraction}, got {self.val_fraction}"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed of the data must lie in [0, 2^32), got {self.seed}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers must be 0 or more, got {self.workers}")
