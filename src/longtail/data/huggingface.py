"""Data sets of Hugging Face `datasets`, in memory or saved in a folder."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset
from longtail.data.embedded import BATCH, Rows, to_records
from longtail.data.records import Records, to_dataset
from longtail.data.split_names import SPLITS, split_named
from longtail.errors import InputError

NAME = "dataset"  # of one in memory


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of Hugging Face `datasets`."""
    alone = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return alone or (folder / "dataset_dict.json").is_file()


def saved_dataset(config: DataConfig) -> Records:
    """A folder that was written by `save_to_disk` of Hugging Face `datasets`.

    Raises:
        InputError: when `datasets` is not installed, or it has no images and labels.
    """
    try:
        from datasets import load_from_disk
    except ImportError:
        raise InputError(
            f"{config.source} was saved by Hugging Face datasets, which is not installed: "
            "pip install 'longtail[integrations]'"
        ) from None
    folder = Path(config.source)
    return to_records(folder.name, _rows(load_from_disk(str(folder)), folder), config)


def from_huggingface(dataset: Any, name: str = NAME, **settings: Any) -> Dataset:
    """A `datasets.Dataset` or `DatasetDict` of images as a data set of longtail.

    Splits are those of the `DatasetDict`, or of a column `split`; a missing test split is held out.

    Args:
        dataset: with a column of images and one of class indices or names.
        name: name shown in tables and reports.
        **settings: of `DataConfig`, such as `label_column`, `val_fraction` or `image_size`.

    Raises:
        InputError: when there are no such columns, rows are incomplete, or images are broken.
    """
    config = DataConfig(name, **settings)
    return to_dataset(to_records(name, _rows(dataset, Path()), config), config)


def as_source(data: Any) -> Dataset | Records | None:
    """A data set passed as an object, of longtail or `datasets`; None for a name or settings."""
    if isinstance(data, Dataset):
        return data
    if not type(data).__module__.startswith("datasets."):
        return None
    return to_records(NAME, _rows(data, Path()), DataConfig(NAME))


def _rows(dataset: Any, folder: Path) -> list[Rows]:
    """The splits of a `datasets.DatasetDict`, or the rows of a `Dataset`."""
    datasets = sys.modules.get("datasets")  # otherwise it cannot be one of its classes
    if datasets is None or not isinstance(dataset, datasets.Dataset | datasets.DatasetDict):
        raise InputError(
            f"dataset must be a datasets.Dataset or DatasetDict, got {type(dataset).__name__}"
        )
    parts = dataset if isinstance(dataset, datasets.DatasetDict) else {"": dataset}
    odd = [name for name in parts if name and split_named(name) is None]
    if odd:
        raise InputError(f"splits of a DatasetDict must be named as {', '.join(SPLITS)}, got {odd}")

    def of(name: str, part: Any) -> Rows:
        def batches(columns: Sequence[str]) -> Iterator[Any]:
            chosen = part.select_columns(list(columns)).with_format("arrow")
            return iter(chosen.iter(BATCH))

        schema = part.features.arrow_schema
        where = str(folder.absolute())
        return Rows(name or "dataset", split_named(name), where, schema, batches)

    return [of(name, part) for name, part in parts.items()]
