"""Tables that are written row by row as CSV, Parquet or JSON lines, by the file name."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longtail.errors import InputError
from longtail.files import whole_file
from longtail.text import csv_cell
from longtail.training.run import check_run_out

FORMATS = (".csv", ".jsonl", ".ndjson", ".parquet")

Cell = str | float | None
Rows = Sequence[Sequence[Cell]]
Write = Callable[[Rows], None]


def check_table_name(path: Path, command: str, sources: Iterable[str | Path] = ()) -> None:
    """Rejects a file of unknown format; a device, such as `/dev/stdout`, gets CSV.

    Args:
        path: file to write.
        command: the command that writes it.
        sources: what the command reads, which it must not replace.

    Raises:
        InputError: when it cannot be written, or its name has another suffix.
    """
    check_run_out(path, command, sources)
    if path.suffix.lower() not in FORMATS and not _is_device(path):
        raise InputError(f"out of {command} must end in {', '.join(FORMATS)}, got {path}")


@contextmanager
def table_file(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    """Yields a function that appends rows; the file appears once it is complete.

    Args:
        path: file with a name that `check_table_name` accepts.
        columns: name of each column, and whether it holds `str` or `float`.

    Raises:
        OSError: when the file cannot be written; it names the file.
    """
    formats = {".parquet": _parquet, ".jsonl": _json, ".ndjson": _json}
    with (
        whole_file(path) as part,
        formats.get(path.suffix.lower(), _csv)(part, columns) as write,
    ):
        yield write


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


@contextmanager
def _csv(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield lambda rows: writer.writerows(map(_csv_cells, rows))


def _csv_cells(row: Sequence[Cell]) -> list[str]:
    return [_csv_cell(cell) for cell in row]


def _csv_cell(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.6f}"
    return csv_cell(cell or "")


@contextmanager
def _json(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(rows: Rows) -> None:
            for row in rows:
                file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False))
                file.write("\n")

        yield write


@contextmanager
def _parquet(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: dict[type, Any] = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema) as writer:

        def write(rows: Rows) -> None:
            arrays = [
                pa.array(cells, field.type)
                for cells, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))

        yield write
