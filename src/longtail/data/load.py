"""From a source's name to its data set."""

import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from longtail.data.cifar import cifar10_lt, cifar100_lt
from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset
from longtail.data.digits import digits_lt
from longtail.data.folder import folder
from longtail.data.listfile import imagenet_lt, inaturalist18, places_lt
from longtail.data.records import Records, to_dataset
from longtail.data.shards import INDEX, shards
from longtail.data.table import table
from longtail.errors import InputError
from longtail.names import imported, nearest

Source = Callable[[DataConfig], Dataset | Records]

SUBSET = {"imbalance", "imbalance_type"}
FILES = {"check", "workers"}
LISTS = FILES | {"root", "lists"}
ALWAYS = {"source", "image_size", "val_fraction", "seed"}

# Each built-in source and the settings that it heeds beside those of all sources.
BUILT_IN: dict[str, tuple[Source, set[str]]] = {
    "digits-lt": (digits_lt, SUBSET),
    "cifar10-lt": (cifar10_lt, SUBSET | {"root"}),
    "cifar100-lt": (cifar100_lt, SUBSET | {"root"}),
    "imagenet-lt": (imagenet_lt, LISTS),
    "places-lt": (places_lt, LISTS),
    "inaturalist18": (inaturalist18, LISTS),
}
COLUMNS = {"root", "path_column", "label_column", "split_column"}


def load(config: DataConfig) -> Dataset:
    """Reads a data set and checks all of it that can be checked before a training.

    Raises:
        ValueError: when the source is not known, or its data are not as they must be.

    Example:
        >>> data = load(DataConfig("digits-lt", imbalance=10))
        >>> len(data.test), data.image_size
        (400, 8)
    """
    source = read_source(config)
    return to_dataset(source, config) if isinstance(source, Records) else source


def read_source(config: DataConfig) -> Dataset | Records:
    """Reads what a source says of its images: the images themselves, or the rows of files.

    Raises:
        ValueError: when the source is not known, or cannot be read.
    """
    read, heeded = _find(config.source)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in heeded | ALWAYS and value != field.default:
            warnings.warn(
                f"{field.name}={value} has no effect on the source {config.source}", stacklevel=2
            )
    return read(config)


def _find(source: str) -> tuple[Source, set[str]]:
    """What reads a source, and the settings that it heeds."""
    if source in BUILT_IN:
        return BUILT_IN[source]
    path = Path(source)
    if (path / INDEX).is_file():
        return shards, FILES
    if path.is_dir():
        return folder, FILES | {"test_fraction"}
    is_table = path.suffix.lower() in (".csv", ".parquet")
    if is_table and path.is_file():
        return table, FILES | {"test_fraction"} | COLUMNS
    if not is_table and (found := imported(source, "source")) is not None:
        return _own(source, found), {field.name for field in fields(DataConfig)}
    what = "there is no such file" if is_table else "it is neither built in nor a folder or table"
    hint = "" if is_table else nearest(source.replace("_", "-"), BUILT_IN)
    raise InputError(
        f"source {source!r} is not known: {what}{hint}. Known are {', '.join(BUILT_IN)}, a folder "
        "with a sub-folder of images for each class, one of shards, a .csv or .parquet table, and "
        "the import path of a function"
    )


def _own(name: str, found: Any) -> Source:
    """A function outside the package as a source; what it returns is checked.

    Raises:
        InputError: when it is not a function.
    """
    if not callable(found):
        raise InputError(f"source {name!r} must be a function of a DataConfig, got {found!r}")

    def read(config: DataConfig) -> Dataset | Records:
        source = found(config)
        if not isinstance(source, Dataset | Records):
            raise InputError(f"source {name!r} must return a Dataset, got {type(source).__name__}")
        return source

    return read
