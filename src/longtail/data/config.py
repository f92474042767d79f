"""Settings of a data set."""

from dataclasses import dataclass
from typing import Literal

from longtail.data.longtailed import ImbalanceType
from longtail.errors import InputError
from longtail.ranges import MAX_SIDE, MAX_WORKERS, check_range


@dataclass
class DataConfig:
    """Where the images come from, and how they are split.

    Args:
        source: a built-in data set (`digits-lt`, `cifar10-lt`, `cifar100-lt`, `imagenet-lt`,
            `places-lt`, `inaturalist18`), a folder with a sub-folder per class, a folder of shards
            (`longtail data shard`) or of Parquet files with images, or a .csv, .tsv or .parquet
            table; shards, tables and their images also at a URL.
        root: cifar: folder of the data files (default: `data`). List files: folder of the images.
            Tables: folder that relative paths start from (default: the folder of the table).
        lists: list files: folder of the lists and class names (default: `root`).
        imbalance: digits, cifar: largest over smallest class count of the training split, 1 or
            more (default: 30 for digits and 100 for cifar).
        imbalance_type: digits, cifar: how class counts fall from the largest to the smallest.
        image_size: side in pixels of the model's input images (default: the size that the
            pretrained weights were trained at; from scratch, that of the images up to 64 pixels,
            else 224).
        depth: folders: level of the sub-folders that name the classes, from 1 (default: 1 where
            that is clear, otherwise required).
        path_column: tables: column of the image paths, or of the images as bytes.
        label_column: tables: column of the classes.
        split_column: tables: column with train, val or test (default: `split` if it exists, in
            any case).
        test_fraction: fraction of each class held out for testing if the source has neither a test
            nor a val split, between 0 and 1.
        val_fraction: fraction of each class held out for validation if the source has no val split;
            0 for none.
        seed: seed of the subset and of splits made by longtail, independent of the run's seed.
        check: `decode` reads every image before training and lists all broken ones, `exists` only
            checks that each file exists (default: `decode` for folders and tables, `exists` for
            list files and shards, and for training that computes features first, which itself lists
            the broken images). Images held in memory are always decoded.
        workers: worker processes that read large images (default: one per processor, at most 8).

    Raises:
        InputError: when a value is out of range.
    """

    source: str
    root: str | None = None
    lists: str | None = None
    imbalance: float | None = None
    imbalance_type: ImbalanceType = "exponential"
    image_size: int | None = None
    depth: int | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    test_fraction: float = 0.2
    val_fraction: float = 0.0
    seed: int = 0
    check: Literal["decode", "exists"] | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges of the values."""
        if self.imbalance is not None:
            check_range("imbalance", self.imbalance, least=1)
        if self.image_size is not None:
            check_range("image_size", self.image_size, least=1, most=MAX_SIDE)
        if self.depth is not None:
            check_range("depth", self.depth, least=1)
        if self.workers is not None:
            check_range("workers", self.workers, least=0, most=MAX_WORKERS)
        check_range("test_fraction", self.test_fraction, above=0, below=1)
        check_range("seed of the data", self.seed, least=0, below=2**32)
        if not 0 <= self.val_fraction < 1 - self.test_fraction:
            raise InputError(
                "val_fraction must be 0 or more and below 1 - test_fraction, with test_fraction "
                f"{self.test_fraction}, got {self.val_fraction}"
            )
