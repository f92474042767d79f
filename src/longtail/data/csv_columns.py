"""Columns of a delimited text file, for any separator and encoding."""

import codecs
import csv
import io
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data.problems import counted
from longtail.data.reading import arrow_file, open_file, read_bytes
from longtail.errors import InputError

SEPARATORS = ",;\t|"
NAMED_SEPARATOR = re.compile('"?sep=([\t -~])"?', re.IGNORECASE)  # a convention of Excel
HEAD = 1 << 16  # bytes in which the header is expected
ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class CsvColumns:
    """A text file with a header and separated columns.

    Args:
        source: path or URL of the file.
        wanted: column names from which the separator is recognised.

    Attributes:
        names: names of all columns, in order.

    Raises:
        InputError: when the file is packed or has no header.
    """

    def __init__(self, source: str, wanted: Collection[str]) -> None:
        self._source = source
        with open_file(source) as file:
            head = file.read(HEAD)
        if packed := next((name for begin, name in ARCHIVES.items() if head.startswith(begin)), ""):
            raise InputError(f"{source} cannot be read as a table: it is a {packed} file")
        self._encoding = _encoding(head)
        lines = io.StringIO(_decode(head, self._encoding), newline="")
        self._separator = ""
        self.names: list[str] = []
        for number, line in enumerate(lines, 1):
            text = line.strip("\r\n")
            if named := NAMED_SEPARATOR.fullmatch(text):
                self._separator = named[1]
            elif text.strip():
                self._separator, self.names = _header(text, self._separator, wanted)
                self._header_line = number
                break
        if not self.names:
            raise InputError(f"{source} cannot be read as a table: it has no header")
        self._lines: NDArray[np.int64] | None = None

    def texts(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The columns with these names as pyarrow string arrays, by the same keys."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        numbers = {key: str(self.names.index(name)) for key, name in names.items()}
        reading = pa_csv.ReadOptions(
            skip_rows=self._header_line,
            column_names=list(map(str, range(len(self.names)))),
            encoding="utf8" if self._encoding.startswith("utf-8") else self._encoding,
        )
        parsing = pa_csv.ParseOptions(delimiter=self._separator, newlines_in_values=True)
        # Bytes, since other columns may have another encoding; never numbers, since the label 007
        # must not become 7.
        converting = pa_csv.ConvertOptions(
            include_columns=list(numbers.values()),
            column_types=dict.fromkeys(numbers.values(), pa.binary()),
        )
        try:
            table = pa_csv.read_csv(arrow_file(self._source), reading, parsing, converting)
            cells = {key: table[number] for key, number in numbers.items()}
            exact = not any(map(_has_quotes_after_blanks, cells.values()))
        except pa.ArrowException:
            # Rows whose number of columns differs from the header's, which are reported, or lines
            # of blanks or quotes after blanks, which the slower reader can read.
            self._refuse_uneven()
            exact = False
        if not exact:
            cells = self._cells({key: int(number) for key, number in numbers.items()})
        return {key: self._text(names[key], column) for key, column in cells.items()}

    def _cells(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """Columns as bytes, by the slower reader, which allows blanks before a quote."""
        import pyarrow as pa

        rows = [row for _, row in self._rows()]
        return {
            key: pa.chunked_array(
                [pa.array([row[n].encode(errors="surrogateescape") for row in rows])]
            )
            for key, n in numbers.items()
        }

    def origin(self, row: int) -> str:
        """The line that a row begins in."""
        if self._lines is None:
            self._lines = np.fromiter((line for line, _ in self._rows()), np.int64)
        return f"line {self._lines[row]}"

    def _text(self, name: str, column: Any) -> Any:
        """A column of bytes as text: UTF-8, otherwise Windows-1252 with a warning."""
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
        """The rows below the header, each with the number of its first line in the file."""
        errors = "surrogateescape" if self._encoding.startswith("utf-8") else "replace"
        with io.TextIOWrapper(
            open_file(self._source), encoding=self._encoding, errors=errors, newline=""
        ) as file:
            for _ in range(self._header_line):
                file.readline()
            reader = csv.reader(file, delimiter=self._separator, skipinitialspace=True)
            begin = self._header_line + 1
            try:
                for row in reader:
                    if len(row) > 1 or "".join(row).strip():
                        yield begin, row
                    begin = self._header_line + reader.line_num + 1
            except csv.Error as error:  # a quote that is not closed makes a cell of many lines
                raise InputError(
                    f"{self._source} cannot be read as a table: line {begin}: {error}; "
                    "is a quote not closed?"
                ) from error

    def _refuse_uneven(self) -> None:
        """Raises an error that names the rows whose number of columns differs from the header's."""
        columns = len(self.names)
        uneven = [
            f"line {line} has {len(row):,}" for line, row in self._rows() if len(row) != columns
        ]
        what = f"rows that do not have {columns} columns (separator {self._separator!r})"
        if uneven:
            raise InputError(f"{self._source} cannot be read as a table: {counted(what, uneven)}")


def _has_quotes_after_blanks(cells: Any) -> bool:
    """Whether a cell of bytes begins with blanks and a quote, which is then a CSV quote."""
    import pyarrow.compute as pc

    return bool(pc.any(pc.match_substring_regex(cells, '^[ \\t]+"')).as_py())


def _encoding(head: bytes) -> str:
    """Encoding by the byte order mark, or by the zero bytes of UTF-16; else UTF-8."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    zeros = [head[begin::2].count(0) / max(1, len(head) // 2) for begin in (0, 1)]
    if max(zeros) > 0.3:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8-sig"


def undecodable(source: str) -> str:
    """Describes the first line of a text that is invalid in its encoding."""
    content = read_bytes(source)
    encoding = _encoding(content[:HEAD])
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="replace")
        line = len(f"{before}.".splitlines())
        return f"line {line} is not valid {encoding.upper()} ({error.reason}). Save it as UTF-8"
    return "it changed while it was read"


def _decode(head: bytes, encoding: str) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:  # a name in another encoding is shown as such
        return head.decode("cp1252" if encoding == "utf-8-sig" else encoding, errors="replace")


def _header(line: str, given: str, wanted: Collection[str]) -> tuple[str, list[str]]:
    """Separator and column names, by the separator that gives the wanted or else most names."""
    read = {}
    for separator in given or SEPARATORS:
        names = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
        read[separator] = [name.strip() for name in names]
    return max(
        read.items(),
        key=lambda item: (len(set(wanted).intersection(item[1])), len(item[1])),
    )
