"""Reading and writing of files: writes are atomic, and errors name the file."""

import errno
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from longtail.errors import InputError

LARGEST_JSON = 2**28  # characters in a file of names and values
LARGEST_YAML = 2**20
MOST_VALUES = 100_000  # in a YAML file, counting each repetition by an alias


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; the file written there replaces `path` only when it is complete.

    The file is flushed to the disk and renamed, so a reader sees the old file or the new one, and
    a kill or a full disk leaves the old one. A link stays one; a device, such as
    `/dev/stdout`, is written to directly.

    Raises:
        OSError: when the file cannot be written; it names `path` and the reason.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with whole_file(target) as part:
        ...     _ = part.write_text("all of it")
        >>> target.read_text()
        'all of it'
    """
    path = Path(path)
    is_device = path.exists() and not (path.is_file() or path.is_dir())
    path = Path(path if is_device else os.path.realpath(path))
    part = path if is_device else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_device:
            yield path
            return
        part.touch()
        mode = part.stat().st_mode  # by the umask; some writers make files private
        part.unlink()
        yield part
        part.chmod(mode)
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except BrokenPipeError:  # the reader of a device has closed it
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            errno.ENOTDIR, f"cannot write {path}: {nearest_existing(path.parent)} is not a folder"
        ) from error
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if not is_device:
            with suppress(OSError):  # its folder may be a file
                part.unlink()


def check_out(path: Path, command: str, sources: Iterable[str | Path] = ()) -> None:
    """Rejects a file that cannot be written, before the work whose result it will hold.

    Args:
        path: file to write.
        command: the command that writes it.
        sources: what the command reads, which it must not replace.

    Raises:
        InputError: when the path is a folder or one of the sources, or a folder above it is a file.
    """
    for source in sources if path.is_file() else ():
        if os.path.exists(source) and os.path.samefile(path, source):
            raise InputError(f"out of {command} must not replace {source}, which it reads")
    if path.is_dir():
        raise InputError(f"out of {command} must be a file, but {path} is a folder")
    above = nearest_existing(path)
    if above != path and not above.is_dir():
        raise InputError(f"out of {command} must be in a folder, but {above} is a file")


def nearest_existing(path: Path) -> Path:
    """The path itself if it exists, else the nearest of the folders above it that does."""
    return next((found for found in (path, *path.parents) if found.exists()), path)


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_folder() -> Path:
    """The cache folder: `LONGTAIL_CACHE`, else the system's folder for caches."""
    if own := os.environ.get("LONGTAIL_CACHE"):
        return Path(own)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "longtail"


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def read_text(path: str | Path, most: int | None = None) -> str:
    """Text of a UTF-8 file, with a byte order mark or without.

    Args:
        path: the file.
        most: maximum number of characters.

    Raises:
        InputError: when it is not UTF-8 text, or too long; the message names the file.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as handle:
            text = handle.read(-1 if most is None else most + 1)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text: {error}") from error
    if most is not None and len(text) > most:
        raise InputError(f"{path} must not have more than {most:,} characters")
    return text


def to_json(value: Any) -> str:
    """JSON text; a number that is not finite, which JSON cannot represent, becomes null.

    Examples:
        >>> print(to_json({"few": math.nan}))
        {
         "few": null
        }
    """
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, to_json(value) + "\n")


def read_values(path: str | Path) -> dict[str, Any]:
    """Reads names and values from a JSON or YAML file, chosen by its suffix.

    The file may come from anyone: only plain values are read, and neither its size nor its nesting
    nor YAML aliases can exhaust the memory.

    Raises:
        InputError: when the file cannot be parsed, or contains something else.
    """
    path = Path(path)
    is_json = path.suffix == ".json"
    text = read_text(path, LARGEST_JSON if is_json else LARGEST_YAML)
    try:
        values: Any = parse_json(text) if is_json else _parse_yaml(text)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold names and values, got {type(values).__name__}")
    return values


def parse_json(text: str | bytes) -> Any:
    """Values of a JSON text.

    Raises:
        InputError: when it is not valid JSON; NaN and Infinity are not.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not valid JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a valid JSON number")


def _parse_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        InputError: when it is not valid YAML, or has too many values.
    """
    import yaml  # not every user of this module needs it

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if (count := _count(node, {})) > MOST_VALUES:
            more = "endless" if count == math.inf else f"{count:,}"
            raise InputError(f"its aliases make {more} values, more than {MOST_VALUES:,}")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise error if isinstance(error, InputError) else InputError(str(error)) from error


def _count(node: Any, known: dict[int, float]) -> float:
    """Number of values below a YAML node; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner = node.value if isinstance(node.value, list) else []
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else [item])]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Reads names and values from every line of a JSON lines file; none if it is missing.

    Raises:
        InputError: when a line cannot be parsed, or contains something else.
    """
    path = Path(path)
    lines = read_text(path).splitlines() if path.is_file() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # also of a number of 5,000 digits
            raise InputError(f"{path}, line {number}, is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}, must hold names and values, got {line[:40]}")
        records.append(record)
    return records


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
