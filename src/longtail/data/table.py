"""A CSV or Parquet table of images."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.records import (
    SPLITS,
    Records,
    class_order,
    counted,
    report_problems,
)
from longtail.errors import InputError


def table(config: DataConfig) -> Records:
    """A .csv or .parquet table with columns for the path, the label and, if there is, the split.

    Labels that are whole numbers keep their order, others are sorted. `index` is the row, from 0.

    Raises:
        ValueError: when a column is not there, or rows are incomplete or contradict each other.
    """
    source = Path(config.source)
    columns = _columns(source, config)
    rows = len(columns["path"])
    splits = columns.get("split") or ["train"] * rows

    def origin(row: int) -> str:
        # In a CSV file the header is line 1; Parquet rows are counted from 0, as by its readers.
        return f"line {row + 2}" if source.suffix.lower() == ".csv" else f"row {row}"

    problems = []
    for column, values in columns.items():
        empty = [origin(row) for row, value in enumerate(values) if not value]
        if empty:
            problems.append(counted(f"rows without a {column}", empty))
    odd = [f"'{p}' ({origin(row)})" for row, p in enumerate(splits) if p and p not in SPLITS]
    if odd:
        problems.append(counted("rows with a split other than train, val and test", odd))
    labels = set(columns["label"])
    blanks = [repr(label) for label in sorted(labels) if label.strip() != label]
    if len({label.strip() for label in labels}) < len(labels):
        problems.append(counted("labels that differ from others in blanks alone", blanks))
    if "train" not in splits:
        problems.append("no row has the split train" if rows else "it has no row")
    report_problems(str(source), problems)

    top = os.path.abspath(config.root or source.parent)
    names = class_order(columns["label"])
    number = {name: c for c, name in enumerate(names)}
    return Records(
        name=source.stem,
        paths=[os.path.normpath(os.path.join(top, path)) for path in columns["path"]],
        labels=np.array([number[label] for label in columns["label"]], dtype=np.int64),
        splits=np.array(splits, dtype="U5"),
        index=np.arange(rows),
        class_names=names,
        origin=lambda row: f"{source.name}, {origin(row)}",
        check="decode",
    )


def _columns(source: Path, config: DataConfig) -> dict[str, list[str]]:
    """Text of the columns path, label and, where there is one, split; '' where there is nothing."""
    data = _read(source)
    wanted = {"path": config.path_column, "label": config.label_column}
    if config.split_column is not None or "split" in data.column_names:
        wanted["split"] = config.split_column or "split"
    absent = [f"{name}_column '{c}'" for name, c in wanted.items() if c not in data.column_names]
    if absent:
        raise InputError(
            f"{source} has no {' and no '.join(absent)}; "
            f"its columns are {', '.join(data.column_names)}"
        )
    return {name: _texts(source, data, column) for name, column in wanted.items()}


def _texts(source: Path, data: Any, column: str) -> list[str]:
    """A column of a pyarrow table as text."""
    import pyarrow as pa

    if data.column_names.count(column) > 1:
        raise InputError(f"{source} must have one column {column!r}, got several of that name")
    try:
        return [text or "" for text in data[column].cast("string").to_pylist()]
    except pa.ArrowException as error:
        raise InputError(
            f"column {column!r} of {source} must hold text or numbers, got {data[column].type}"
        ) from error


def _read(source: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if source.suffix.lower() == ".parquet":
            return parquet.read_table(source)
        # All columns are text: a label 007 must not become 7.
        with csv.open_csv(source) as reader:
            names = reader.schema.names
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        return csv.read_csv(source, convert_options=as_text)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as a table: {error}") from error
