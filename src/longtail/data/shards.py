"""A data set in a few large tar files, for disks that are slow with many small files."""

import json
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.paths import Part, is_url, join, member
from longtail.data.problems import counted, report_problems
from longtail.data.reading import arrow_file, renew, warn_if_larger
from longtail.data.records import Records
from longtail.data.remote import RefusedError, fetch
from longtail.data.split_names import SPLITS
from longtail.errors import InputError

INDEX = "index.parquet"
NUMBERS = ("offset", "size", "label", "index")
TEXTS = ("shard", "split", "path")
SHARD = re.compile(r"\w[\w.-]*\.tar")  # no path or URL, which could be outside of the folder


def shards(config: DataConfig) -> Records:
    """A folder of tar files with their index, as written by `longtail data shard`.

    Images are read by offset and size, in any order, so that any number of processes and workers
    and resuming within an epoch work as for loose files.

    Raises:
        InputError: when the index is not valid, or shards are missing or too short.
    """
    folder = config.source if is_url(config.source) else os.path.abspath(config.source)
    file = join(config.source, INDEX)
    try:
        renew(file)
    except RefusedError as error:
        raise InputError(
            "a URL must be that of a table (.csv, .tsv or .parquet) or of a folder of shards: "
            f"{error}"
        ) from error
    columns, name, class_names = _read_index(file)
    names, codes = np.unique(columns["shard"], return_inverse=True)
    ends = np.zeros(len(names), np.int64)
    np.maximum.at(ends, codes, columns["offset"] + columns["size"])
    report_problems(file, _invalid(columns, names, len(class_names)))
    short = _short(folder, names.tolist(), ends.tolist())
    report_problems(
        config.source, [counted("shards that are missing or too short", short)] * bool(short)
    )
    if is_url(folder):
        warn_if_larger(config.source, int(columns["size"].sum()))
    return Records(
        name=name,
        paths=[
            member(join(folder, shard), offset, size)
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


def _short(folder: str, shards: list[str], ends: list[int]) -> list[str]:
    """The shards that do not contain all bytes of their images."""
    if is_url(folder):
        last = [
            Part(join(folder, shard), end - 1, end) for shard, end in zip(shards, ends, strict=True)
        ]
        return [str(answer) for answer in fetch(last) if isinstance(answer, RefusedError)]
    return [
        f"{shard} has no byte {end:,}"
        for shard, end in zip(shards, ends, strict=True)
        if not os.path.isfile(path := join(folder, shard)) or os.path.getsize(path) < end
    ]


def _read_index(file: str) -> tuple[dict[str, NDArray[Any]], str, tuple[str, ...]]:
    """Columns of an index, name of the data set, and class names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(arrow_file(file))
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
    outside = [repr(name) for name in shards if not SHARD.fullmatch(name)]
    problems = [counted("shards outside of its folder", outside)] if outside else []
    label, split = columns["label"], columns["split"].astype(str)
    valid = {
        "label": (f"labels outside of [0, {num_classes})", (label >= 0) & (label < num_classes)),
        "split": ("splits other than train, val and test", np.isin(split, SPLITS)),
        "offset": ("negative offsets", columns["offset"] >= 0),
        "size": ("sizes below 1", columns["size"] >= 1),
    }
    for column, (what, good) in valid.items():
        if rows := np.flatnonzero(~good).tolist():
            problems.append(counted(what, [f"{columns[column][r]} (row {r})" for r in rows]))
    return problems
