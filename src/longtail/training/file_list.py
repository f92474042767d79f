"""The image files to predict: files, folders, shards and tables."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from longtail.data import DataConfig, is_image
from longtail.data.columns import read_columns
from longtail.data.formats import counted_by_suffix
from longtail.data.load import TABLES, read_source
from longtail.data.records import Records
from longtail.data.shards import INDEX
from longtail.data.table import absolute_paths
from longtail.data.tree import files_below
from longtail.errors import InputError


class Files(NamedTuple):
    """Image files, in the order in which they were given.

    Args:
        names: path of each as given by the user or in a table.
        paths: file of each, as `longtail.data.images.open_image` takes it.
    """

    names: list[str]
    paths: list[str]


def list_files(
    files: str | Path | Sequence[str | Path],
    path_column: str | None = None,
    root: str | Path | None = None,
) -> Files:
    """Lists image files from files, folders, shards and tables; missing files are kept.

    A folder is searched at any depth, except hidden and system folders; its files are sorted by
    path, and those that are not images are counted in a warning.

    Args:
        files: image files; folders; folders of shards; .csv, .tsv and .parquet tables.
        path_column: column of a table with the paths; default: `path`.
        root: folder that relative paths in a table start from; default: that of the table.

    Raises:
        InputError: when none of the files exists, there is no image, or a table cannot be read.
    """
    given = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    if not any(file.exists() for file in given):
        raise InputError(f"no such file or folder: {', '.join(map(str, given)) or 'none given'}")
    tables = [file for file in given if file.suffix.lower() in TABLES and file.is_file()]
    if not tables and (path_column or root):
        raise InputError("path_column and root are for tables, but no table was given")
    found = Files([], [])
    for file in given:
        if file in tables:
            names, paths = _of_table(file, path_column or "path", root)
        elif (file / INDEX).is_file():
            records = read_source(DataConfig(str(file)))
            assert isinstance(records, Records)
            names = paths = records.paths
        else:
            names = paths = _of_folder(file) if file.is_dir() else [str(file)]
        found.names.extend(names)
        found.paths.extend(paths)
    if not found.paths:
        raise InputError(f"no image file in {', '.join(map(str, given))}")
    return found


def _of_folder(folder: Path) -> list[str]:
    """Image files below a folder, sorted."""
    files = sorted(files_below(folder))
    if others := [file for file in files if not is_image(file)]:
        what = "1 file that is not an image"
        if len(others) > 1:
            what = f"{len(others):,} files that are not images"
        warnings.warn(f"{folder}: skipped {what}: {counted_by_suffix(others)}", stacklevel=2)
    return [file for file in files if is_image(file)]


def _of_table(table: Path, column: str, root: str | Path | None) -> Files:
    """Paths as written in a table, and their locations."""
    columns = read_columns(str(table), {"path": column}, {}, prefix="--")
    names = [text or "" for text in columns.texts["path"].to_pylist()]
    return Files(names, absolute_paths(str(root or table.parent), names))
