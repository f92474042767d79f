"""Columns of a CSV or Parquet file as text, whatever its separator and encoding."""

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data.problems import counted, shown
from longtail.errors import InputError

SEPARATORS = ",;\t|"
HEAD = 1 << 16  # bytes in which the header is expected


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of a table.

    Args:
        texts: pyarrow string array of each column; null or blank where a cell is missing.
        origin: where row i is in the file, such as `line 7`.
    """

    texts: Mapping[str, Any]
    origin: Callable[[int], str]


def read_columns(source: Path, wanted: Mapping[str, str], optional: Mapping[str, str]) -> Columns:
    """Reads columns of a table; the other columns are not looked at.

    Args:
        source: a .parquet file, or any other name for a text file.
        wanted: name in the table of each column that must exist.
        optional: name in the table of each column that may exist.

    Raises:
        InputError: when the file is not a table, a column is absent or listed twice, or a text is
            not readable in its encoding; it names the file, and the lines.
    """
    import pyarrow as pa

    read = _Parquet(source) if source.suffix.lower() == ".parquet" else _Csv(source, wanted)
    names = {**wanted, **{key: name for key, name in optional.items() if name in read.names}}
    absent = [f"{key}_column '{c}'" for key, c in names.items() if c not in read.names]
    if absent:
        raise InputError(
            f"{source} has no {' and no '.join(absent)}; its columns are "
            + ", ".join(map(shown, read.names))
        )
    twice = [name for name in names.values() if read.names.count(name) > 1]
    if twice:
        raise InputError(f"{source} must have one column {twice[0]!r}, got several of that name")
    try:
        return Columns(read.texts(names), read.origin)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as a table: {error}") from error


class _Parquet:
    """A Parquet file."""

    def __init__(self, source: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._source = source
        try:
            self.names: list[str] = parquet.read_schema(source).names
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{source} cannot be read as a table: {error}") from error

    def texts(self, names: Mapping[str, str]) -> dict[str, Any]:
        from pyarrow import parquet

        table = parquet.read_table(self._source, columns=list(names.values()))
        return {key: self._text(name, table[name]) for key, name in names.items()}

    def _text(self, name: str, column: Any) -> Any:
        """A column as text; NaN is missing, and 1.0 is the label 1 as in a column of integers."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
            if pc.all(pc.equal(column, pc.round(column))).as_py() is not False:
                column = column.cast("int64")
        try:
            return column.cast("string")
        except pa.ArrowException as error:
            raise InputError(
                f"column {name!r} of {self._source} must hold text or numbers, got {column.type}"
            ) from error

    def origin(self, row: int) -> str:
        return f"row {row}"


class _Csv:
    """A text file with a header and separated columns."""

    def __init__(self, source: Path, wanted: Mapping[str, str]) -> None:
        self._source = source
        with source.open("rb") as file:
            head = file.read(HEAD)
        self._encoding = _encoding(head)
        lines = io.StringIO(_decode(head, self._encoding), newline="")
        self._separator = ""
        self.names: list[str] = []
        for number, line in enumerate(lines, 1):
            text = line.strip("\r\n")
            if text.lower().startswith("sep=") and len(text) == 5:  # a convention of Excel
                self._separator = text[4]
            elif text.strip():
                self._separator, self.names = _header(text, self._separator, wanted.values())
                self._header_line = number
                break
        if not self.names:
            raise InputError(f"{source} cannot be read as a table: it has no header")
        self._lines: NDArray[np.int64] | None = None

    def texts(self, names: Mapping[str, str]) -> dict[str, Any]:
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        uneven = False

        def skip(row: Any) -> str:
            nonlocal uneven
            uneven = uneven or bool(row.text.strip())
            return "skip"

        numbers = {key: str(self.names.index(name)) for key, name in names.items()}
        table = pa_csv.read_csv(
            self._source,
            pa_csv.ReadOptions(
                skip_rows=self._header_line,
                column_names=list(map(str, range(len(self.names)))),
                encoding="utf8" if self._encoding.startswith("utf-8") else self._encoding,
            ),
            pa_csv.ParseOptions(
                delimiter=self._separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            # Bytes, as the other columns may have another encoding; never numbers, as a label 007
            # must not become 7.
            pa_csv.ConvertOptions(
                include_columns=list(numbers.values()),
                column_types=dict.fromkeys(numbers.values(), pa.binary()),
            ),
        )
        if uneven:
            self._refuse_uneven()
        return {key: self._text(names[key], table[number]) for key, number in numbers.items()}

    def origin(self, row: int) -> str:
        if self._lines is None:
            self._lines = np.fromiter((line for line, _ in self._rows()), np.int64)
        return f"line {self._lines[row]}"

    def _text(self, name: str, column: Any) -> Any:
        """A column of bytes as text: UTF-8, and else Windows-1252, with a warning."""
        import pyarrow as pa

        try:
            return column.cast("string")
        except pa.ArrowException:
            pass
        texts, odd = [], []
        for row, cell in enumerate(column.to_pylist()):
            try:
                texts.append(cell.decode())
            except UnicodeDecodeError:
                try:
                    texts.append(cell.decode("cp1252"))
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{self._source}, {self.origin(row)}: column {name!r} is neither UTF-8 nor "
                        f"Windows-1252: {cell!r}. Save the table as UTF-8"
                    ) from error
                odd.append(f"{texts[-1]!r} in {self.origin(row)}")
        warnings.warn(
            f"{self._source} is not UTF-8 and is read as Windows-1252; save it as UTF-8 if these "
            + counted("are wrong", odd),
            stacklevel=2,
        )
        return pa.chunked_array([pa.array(texts, pa.string())])

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the header, each with the line that it begins in, as an editor counts."""
        with self._source.open(encoding=self._encoding, errors="replace", newline="") as file:
            for _ in range(self._header_line):
                file.readline()
            reader = csv.reader(file, delimiter=self._separator)
            begin = self._header_line + 1
            for row in reader:
                if len(row) > 1 or "".join(row).strip():
                    yield begin, row
                begin = self._header_line + reader.line_num + 1

    def _refuse_uneven(self) -> None:
        columns = len(self.names)
        uneven = [
            f"line {line} has {len(row):,}" for line, row in self._rows() if len(row) != columns
        ]
        what = f"rows that do not have {columns} columns (separator {self._separator!r})"
        raise InputError(f"{self._source} cannot be read as a table: {counted(what, uneven)}")


def _encoding(head: bytes) -> str:
    """Encoding by the byte order mark, or by the zero bytes of UTF-16; else UTF-8."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    zeros = [head[begin::2].count(0) / max(1, len(head) // 2) for begin in (0, 1)]
    if max(zeros) > 0.3:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8-sig"


def _decode(head: bytes, encoding: str) -> str:
    try:
        return head.decode(encoding)
    except UnicodeDecodeError:
        # The end may be cut; and a name in another encoding is shown as such.
        return head.decode("cp1252" if encoding == "utf-8-sig" else encoding, errors="replace")


def _header(line: str, given: str, wanted: Sequence[str] | Any) -> tuple[str, list[str]]:
    """Separator and column names: the separator that gives the wanted names, else most names."""
    read = {
        separator: [name.strip() for name in next(csv.reader([line], delimiter=separator))]
        for separator in given or SEPARATORS
    }
    return max(
        read.items(),
        key=lambda item: (len(set(wanted).intersection(item[1])), len(item[1])),
    )
