"""A data set in a few large tar files, for disks that are slow with many small files."""

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.images import member
from longtail.data.problems import counted, report_problems
from longtail.data.records import Records
from longtail.data.split_names import SPLITS
from longtail.errors import InputError

INDEX = "index.parquet"
NUMBERS = ("offset", "size", "label", "index")
TEXTS = ("shard", "split", "path")


def shards(config: DataConfig) -> Records:
    """A folder of tar files with their index, as written by `longtail data shard`.

    Images are read by offset and size, in any order, so that any number of processes and workers
    and resuming within an epoch work as for loose files.

    Raises:
        InputError: when the index is not valid, or shards are missing or too short.
    """
    folder = os.path.abspath(config.source)
    file = f"{config.source}/{INDEX}"
    columns, name, class_names = _read_index(file)
    names, codes = np.unique(columns["shard"], return_inverse=True)
    ends = np.zeros(len(names), np.int64)
    np.maximum.at(ends, codes, columns["offset"] + columns["size"])
    report_problems(file, _invalid(columns, names, len(class_names)))
    short = [
        f"{shard} has no byte {end:,}"
        for shard, end in zip(names, ends, strict=True)
        if not os.path.isfile(path := os.path.join(folder, shard)) or os.path.getsize(path) < end
    ]
    report_problems(
        config.source, [counted("shards that are missing or too short", short)] * bool(short)
    )
    return Records(
        name=name,
        paths=[
            member(os.path.join(folder, shard), offset, size)
            for shard, offset, size in zip(
                columns["shard"], columns["offset"].tolist(), columns["size"].tolist(), strict=True
            )
        ],
        labels=columns["label"],
        splits=columns["split"].astype("U5"),
        index=columns["index"],
        class_names=class_names,
        origin=lambda row: str(columns["path"][row]),
        check="exists",
    )


def _read_index(file: str) -> tuple[dict[str, NDArray[Any]], str, tuple[str, ...]]:
    """Columns of an index, name of the data set, and class names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"longtail"])
        name, class_names = about["name"], about["class_names"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is not a valid index of shards (corrupt, or not written by "
            f"`longtail data shard`): {error!r}"
        ) from error
    if not (isinstance(name, str) and isinstance(class_names, list) and class_names) or not all(
        isinstance(each, str) for each in class_names
    ):
        raise InputError(f"{file} is not a valid index of shards: it has no name or class names")
    absent = [column for column in NUMBERS + TEXTS if column not in table.column_names]
    if absent:
        raise InputError(f"{file} has no column {', '.join(absent)}")
    columns = {}
    for column in NUMBERS + TEXTS:
        try:
            values = table[column].cast(pa.int64() if column in NUMBERS else pa.string())
        except pa.ArrowException as error:
            what = "whole numbers" if column in NUMBERS else "text"
            raise InputError(
                f"column {column} of {file} must hold {what}, got {table[column].type}"
            ) from error
        if values.null_count:
            raise InputError(f"column {column} of {file} must have no empty cell")
        columns[column] = values.to_numpy().copy()
    return columns, name, tuple(class_names)


def _invalid(
    columns: dict[str, NDArray[Any]], shards: NDArray[np.str_], num_classes: int
) -> list[str]:
    """Values of an index that are out of range."""
    outside = [
        repr(name) for name in shards if os.path.basename(name) != name or name in ("", "..")
    ]
    problems = []
    if outside:
        problems.append(counted("shards outside of its folder", outside))
    valid = {
        f"labels outside of [0, {num_classes})": _within(columns["label"], num_classes),
        "splits other than train, val and test": np.isin(columns["split"].astype(str), SPLITS),
        "negative offsets": columns["offset"] >= 0,
        "sizes below 1": columns["size"] >= 1,
    }
    for (what, good), column in zip(
        valid.items(), ("label", "split", "offset", "size"), strict=True
    ):
        rows = np.flatnonzero(~good).tolist()
        if rows:
            problems.append(counted(what, [f"{columns[column][r]} (row {r})" for r in rows]))
    return problems


def _within(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.bool_]:
    return (labels >= 0) & (labels < num_classes)
