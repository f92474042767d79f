"""Columns of a CSV or Parquet file as text, for any separator and encoding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longtail.data.csv_columns import CsvColumns, undecodable
from longtail.data.formats import is_image
from longtail.data.paths import name_of
from longtail.data.problems import shown
from longtail.data.reading import arrow_file
from longtail.errors import InputError

WHOLE = 2.0**53  # below it, float64 represents every whole number


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of a table.

    Args:
        texts: pyarrow string array of each column; null or blank if a cell is missing.
        origin: location of row i in the file, such as `line 7`.
    """

    texts: Mapping[str, Any]
    origin: Callable[[int], str]


def read_columns(
    source: str, wanted: Mapping[str, str], optional: Mapping[str, str], prefix: str = "--data."
) -> Columns:
    """Reads columns of a table; other columns are not read.

    Args:
        source: path or URL of a .parquet file, or any other name for a text file.
        wanted: name in the table of each column that must exist.
        optional: name in the table of each column that may exist, in any case.
        prefix: of the options that name the columns, for messages.

    Raises:
        InputError: when the file is not a table, a column is absent or listed twice, or a text is
            not readable in its encoding; the message names the file and the lines.
    """
    import pyarrow as pa

    read = (
        _Parquet(source)
        if name_of(source).lower().endswith(".parquet")
        else CsvColumns(source, wanted.values())
    )
    others = [name for name in read.names if name not in wanted.values()]
    there = {key: like_named(name, others) for key, name in optional.items()}
    names = {**wanted, **{key: name for key, name in there.items() if name}}
    absent = {key: name for key, name in names.items() if name not in read.names}
    if absent:
        listed = " and no ".join(f"{key}_column '{name}'" for key, name in absent.items())
        raise InputError(
            f"{source} has no {listed}; its columns are "
            + ", ".join(map(shown, read.names))
            + _advice(absent, read.names, prefix)
        )
    twice = [name for name in names.values() if read.names.count(name) > 1]
    if twice:
        raise InputError(f"{source} must have one column {twice[0]!r}, got several of that name")
    try:
        return Columns(read.texts(names), read.origin)
    except UnicodeDecodeError as error:
        raise InputError(f"{source} cannot be read as a table: {undecodable(source)}") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as a table: {error}") from error


def _advice(absent: Mapping[str, str], names: Sequence[str], prefix: str) -> str:
    """End of the message about absent columns: advice from the look of the header."""
    if names and is_image(names[0]):
        return "; the first line looks like a row, but must be a header"
    found = {key: [n for n in names if _plain(n) == _plain(absent[key])] for key in absent}
    options = [f"{prefix}{key}-column {like[0]!r}" for key, like in found.items() if like]
    return f"; did you mean {' '.join(options)}?" if options else ""


def like_named(name: str, names: Sequence[str]) -> str | None:
    """The column of that name, else the only one that differs in case and blanks alone."""
    like = [found for found in names if _plain(found) == _plain(name)]
    return name if name in names else like[0] if len(like) == 1 else None


def _plain(name: str) -> str:
    return name.strip("\ufeff'\" ").casefold()


def parquet_schema(source: str) -> Any:
    """Arrow schema of a Parquet file.

    Raises:
        InputError: when it is not a Parquet file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(arrow_file(source))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source} cannot be read as a table: {error}") from error


class _Parquet:
    """A Parquet file."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.names: list[str] = parquet_schema(source).names

    def texts(self, names: Mapping[str, str]) -> dict[str, Any]:
        from pyarrow import parquet

        table = parquet.read_table(arrow_file(self._source), columns=list(names.values()))
        return {key: self._text(name, table[name]) for key, name in names.items()}

    def _text(self, name: str, column: Any) -> Any:
        """A column as text; NaN is missing, and 1.0 is the label 1 as in a column of integers."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            column = column.cast("float64")
            column = pc.if_else(pc.is_nan(column), None, column)
            whole = pc.and_(pc.less(pc.abs(column), WHOLE), pc.equal(column, pc.round(column)))
            if pc.all(whole).as_py() is not False:
                column = column.cast("int64")
        try:
            return column.cast("string")
        except pa.ArrowException as error:
            raise InputError(
                f"column {name!r} of {self._source} must hold text or numbers, got {column.type}"
            ) from error

    def origin(self, row: int) -> str:
        return f"row {row}"
