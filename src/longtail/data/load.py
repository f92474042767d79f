"""Finds and reads a data set by its name or path."""

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
from longtail.data.huggingface import is_saved_dataset, saved_dataset
from longtail.data.listfile import imagenet_lt, inaturalist18, places_lt
from longtail.data.parquet import parquet_files, parquet_images
from longtail.data.paths import is_url, name_of
from longtail.data.records import Records, to_dataset
from longtail.data.remote import RefusedError
from longtail.data.shards import INDEX, shards
from longtail.data.table import table
from longtail.errors import InputError
from longtail.names import imported, is_import_path, nearest, nearest_or_module

Source = Callable[[DataConfig], Dataset | Records]

SUBSET = {"imbalance", "imbalance_type"}
FILES = {"check", "workers"}
LISTS = FILES | {"root", "lists"}
ALWAYS = {"source", "image_size", "val_fraction", "seed"}

# Each built-in source and the settings that it uses besides those of all sources.
BUILT_IN: dict[str, tuple[Source, set[str]]] = {
    "digits-lt": (digits_lt, SUBSET),
    "cifar10-lt": (cifar10_lt, SUBSET | {"root"}),
    "cifar100-lt": (cifar100_lt, SUBSET | {"root"}),
    "imagenet-lt": (imagenet_lt, LISTS),
    "places-lt": (places_lt, LISTS),
    "inaturalist18": (inaturalist18, LISTS),
}
TABLES = (".csv", ".tsv", ".parquet")
COLUMNS = {"root", "path_column", "label_column", "split_column"}
TABLE = FILES | {"test_fraction"} | COLUMNS


def load(config: DataConfig) -> Dataset:
    """Reads a data set and checks it.

    Raises:
        InputError: when the source is unknown or its data are invalid.

    Examples:
        >>> data = load(DataConfig("digits-lt", imbalance=10))
        >>> len(data.test), data.image_size
        (400, 8)
    """
    source = read_source(config)
    return to_dataset(source, config) if isinstance(source, Records) else source


def read_source(config: DataConfig) -> Dataset | Records:
    """Reads a source: a data set in memory, or the rows of image files.

    Raises:
        InputError: when the source is unknown or cannot be read.
    """
    read, used = _find(config.source)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in used | ALWAYS and value != field.default:
            warnings.warn(
                f"{field.name}={value} has no effect on the source {config.source}", stacklevel=2
            )
    try:
        return read(config)
    except RefusedError as error:
        raise InputError(str(error)) from error


def is_own_source(source: str) -> bool:
    """Whether a source is the import path of a user's function, not a file, folder or table."""
    path = Path(source)
    return is_import_path(source) and path.suffix.lower() not in TABLES and not path.exists()


def _find(source: str) -> tuple[Source, set[str]]:
    """The reader of a source, and the settings that it uses."""
    if source in BUILT_IN:
        return BUILT_IN[source]
    if is_url(source):
        if Path(name_of(source)).suffix.lower() in TABLES:
            return table, TABLE
        return shards, FILES
    path = Path(source)
    if (path / INDEX).is_file():
        return shards, FILES
    if path.is_dir():
        if is_saved_dataset(path):
            return saved_dataset, TABLE
        if parquet_files(path):
            return parquet_images, TABLE
        return folder, FILES | {"test_fraction", "depth"}
    suffix = path.suffix.lower()
    if suffix in TABLES and path.is_file():
        return table, TABLE
    own = is_own_source(source)
    if own and (found := imported(source, "source")) is not None:
        return _own(source, found), {field.name for field in fields(DataConfig)}
    dashed = source.replace("_", "-")
    hint = nearest_or_module(source, BUILT_IN) if own else nearest(dashed, BUILT_IN)
    raise InputError(
        f"source '{source}' is unknown: {_why_unknown(path)}{hint}. Known are "
        f"{', '.join(BUILT_IN)}, a folder with a sub-folder of images for each class, a folder of "
        f"shards or of Parquet files of images, a table ({', '.join(TABLES)}), and the import "
        "path of a function"
    )


def _own(name: str, found: Any) -> Source:
    """A user's function as a source; checks what it returns.

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


def _why_unknown(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.is_file():
        is_sheet = suffix in (".xlsx", ".xls", ".ods")
        hint = "; save the sheet as CSV" if is_sheet else ""
        return f"files ending in {suffix!r} are not tables of images{hint}"
    return "there is no such file" if suffix in TABLES else "it is not built in, nor a folder"
