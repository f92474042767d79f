"""Tables that contain their images as bytes.

The images are copied once, one after another, to a file in the cache, from which any worker reads
them in any order as from a tar file: a single row of a Parquet file cannot be read on its own.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtail.data.columns import like_named
from longtail.data.config import DataConfig
from longtail.data.paths import join, member
from longtail.data.problems import counted, report_problems, shown
from longtail.data.records import Records, class_order
from longtail.data.split_names import split_named
from longtail.errors import InputError
from longtail.files import cache_folder, whole_file

BATCH = 256  # rows that are read at a time


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a Parquet file, or of one split of a `datasets.DatasetDict`.

    Args:
        origin: what messages call it.
        split: the split that all its rows belong to; None: given by a column, if any.
        folder: folder that image paths start from, for rows without bytes.
        schema: its Arrow schema.
        batches: reads some columns, a few rows at a time.
    """

    origin: str
    split: str | None
    folder: str
    schema: Any
    batches: Callable[[Sequence[str]], Iterator[Any]]


def to_records(name: str, tables: Sequence[Rows], config: DataConfig) -> Records:
    """Converts tables that contain their images to rows of a data set.

    Raises:
        InputError: lists everything that is wrong with them.
    """
    columns = _columns(name, tables, config)
    names = _class_names(name, tables, columns["label"])
    counts: list[int] = []
    labels: list[str | None] = []
    splits: list[str | None] = []
    for rows in tables:
        before = len(labels)
        for batch in rows.batches([c for key, c in columns.items() if key != "image"]):
            labels += _texts(batch[columns["label"]], names)
            cells = _texts(batch[columns["split"]], ()) if "split" in columns else []
            splits += [split_named(cell or "") for cell in cells]
        splits += [rows.split or "train"] * (0 if "split" in columns else len(labels) - before)
        counts.append(len(labels) - before)
    ends = np.cumsum(counts)

    def origin(row: int) -> str:
        table = int(np.searchsorted(ends, row, side="right"))
        return f"{tables[table].origin}, row {row - int(ends[table]) + counts[table]}"

    paths = _paths(tables, columns["image"])
    absent = {
        "an image": [i for i, path in enumerate(paths) if path is None],
        f"a class in the column {columns['label']!r}": [
            i for i, label in enumerate(labels) if not label
        ],
        "train, val or test as their split": [i for i, split in enumerate(splits) if not split],
    }
    problems = [
        counted(f"rows without {what}", [origin(i) for i in found])
        for what, found in absent.items()
        if found
    ]
    if "train" not in splits:
        problems.append("no row has the split train" if labels else "it has no rows")
    report_problems(name, problems)
    classes = tuple(names) or class_order(label or "" for label in labels)
    number = {text: c for c, text in enumerate(classes)}
    return Records(
        name=name,
        paths=[path or "" for path in paths],
        labels=np.array([number[label or ""] for label in labels], dtype=np.int64),
        splits=np.array(splits, dtype="U5"),
        index=np.arange(len(labels)),
        class_names=classes,
        origin=origin,
        check="decode",
    )


def _columns(name: str, tables: Sequence[Rows], config: DataConfig) -> dict[str, str]:
    """Names of the columns with images, classes and, if there is one, splits."""
    first = tables[0].schema
    image = image_column(first, config.path_column)
    if image is None:
        raise InputError(
            f"{name} must have a column of images as bytes; name it as path_column if it has "
            f"several. Its columns are {', '.join(map(shown, first.names))}"
        )
    columns = {"image": image, "label": config.label_column}
    named = {rows.split is not None for rows in tables}
    if named == {True, False}:
        odd = [rows.origin for rows in tables if rows.split is None]
        raise InputError(f"{name} has {counted('files that name no split', odd)}")
    others = [column for column in first.names if column not in columns.values()]
    split = config.split_column or like_named("split", others)
    if named == {False} and split:
        columns["split"] = split
    for rows in tables:
        absent = [column for column in columns.values() if column not in rows.schema.names]
        if absent:
            raise InputError(
                f"{name}: {rows.origin} has no column {' and no '.join(map(repr, absent))}; its "
                f"columns are {', '.join(map(shown, rows.schema.names))}"
            )
    return columns


def image_column(schema: Any, named: str) -> str | None:
    """The column of images: the named one if it has bytes, else the only one with bytes."""
    if named in schema.names:
        return named if _holds_bytes(schema.field(named).type) else None
    found = [field.name for field in schema if _holds_bytes(field.type)]
    return found[0] if len(found) == 1 else None


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(name: str, tables: Sequence[Rows], column: str) -> tuple[str, ...]:
    """Class names that `datasets` keeps beside a column of class indices; none for other tables."""
    found = set()
    for rows in tables:
        try:
            about = json.loads((rows.schema.metadata or {})[b"huggingface"])
            found.add(tuple(map(str, about["info"]["features"][column]["names"])))
        except (KeyError, TypeError, ValueError):
            found.add(())
    if len(found) > 1:
        raise InputError(f"the tables of {name} must have the same class names, got {len(found)}")
    (names,) = found
    if len(set(names)) < len(names):
        raise InputError(f"class names of {name} must differ, got {list(names)}")
    return names


def _texts(column: Any, names: Sequence[str]) -> list[str | None]:
    """Cells as stripped text; class indices become names."""
    import pyarrow as pa

    if names:
        inside = range(len(names))
        return [names[c] if c in inside else None for c in column.to_pylist()]
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        raise InputError(f"classes must be text or whole numbers, got {column.type}")
    return [cell and cell.strip() for cell in column.cast("string").to_pylist()]


def _paths(tables: Sequence[Rows], column: str) -> list[str | None]:
    """Path of each image, in the cache or the file named in its row; None if it has neither.

    The file in the cache has the images one after another, and is named by their content.
    """
    digest = hashlib.blake2b(digest_size=16)
    found = []
    for content, path in _cells(tables, column):
        digest.update(content or b"")
        found.append((None if content is None else len(content), path))
    pack = cache_folder() / "images" / f"{digest.hexdigest()}.pack"
    if any(size is not None for size, _ in found) and not pack.exists():
        with whole_file(pack) as part, part.open("wb") as file:
            file.writelines(content or b"" for content, _ in _cells(tables, column))
    paths, begin = [], 0
    for size, path in found:
        paths.append(path if size is None else member(str(pack), begin, size))
        begin += size or 0
    return paths


def _cells(tables: Sequence[Rows], column: str) -> Iterator[tuple[bytes | None, str | None]]:
    """Content and path of each image, of which a row has either or both."""
    for rows in tables:
        for batch in rows.batches([column]):
            for cell in batch[column].to_pylist():
                image = cell if isinstance(cell, dict) else {"bytes": cell}
                path = image.get("path")
                yield image.get("bytes"), path and join(rows.folder, path)
