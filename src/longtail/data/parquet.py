"""Parquet files with images as bytes, as Hugging Face writes data sets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longtail.data.columns import parquet_schema
from longtail.data.config import DataConfig
from longtail.data.embedded import BATCH, Rows, to_records
from longtail.data.formats import is_image
from longtail.data.paths import folder_of, name_of
from longtail.data.reading import arrow_file
from longtail.data.records import Records
from longtail.data.split_names import split_named
from longtail.data.tree import files_below


def parquet_images(config: DataConfig) -> Records:
    """A Parquet file of images as bytes, or a folder of such files, named by their splits.

    The images are in the column `path_column`, or the only one of bytes; it contains bytes, or
    bytes and path as Hugging Face `datasets` writes them. Class names are those that `datasets`
    wrote into the file, else as in a table. The files of a folder begin with the name of their
    split (`train-00000-of-00002.parquet`). `index` is the row, counted over all files.

    Raises:
        InputError: when there is no such column, or rows are incomplete.
    """
    source = config.source
    is_folder = os.path.isdir(source)
    files = list(map(str, parquet_files(Path(source)))) if is_folder else [source]
    name = Path(name_of(source)).stem
    return to_records(name, [_rows(file, is_folder) for file in files], config)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder or its sub-folder `data`; none if it also has image files."""
    files = [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))]
    return [] if files and any(map(is_image, files_below(folder))) else files


def _rows(file: str, named: bool) -> Rows:
    from pyarrow import parquet

    def batches(columns: Sequence[str]) -> Iterator[Any]:
        with parquet.ParquetFile(arrow_file(file)) as opened:
            yield from opened.iter_batches(BATCH, columns=list(columns))

    split = split_named(Path(name_of(file)).stem.partition("-")[0]) if named else None
    return Rows(name_of(file), split, folder_of(file), parquet_schema(file), batches)
