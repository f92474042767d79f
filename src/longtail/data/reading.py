"""Content of files on the disk, in a tar file, or at a URL.

What was read from a URL is kept in the cache, and not requested again while it is there.
"""

import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, TypeVar

from longtail import files
from longtail.data.copies import Copies
from longtail.data.paths import Part, is_url, part_of
from longtail.data.remote import TOGETHER, RefusedError, fetch
from longtail.errors import InputError

GIGABYTES = 20.0  # default limit for copies of remote files
HELD = 2 * TOGETHER  # files in memory between their download and their copies
PROBES = 1024  # files whose existence is checked at a time
LIMIT = "LONGTAIL_CACHE_GB"

Result = TypeVar("Result")


def read_bytes(path: str) -> bytes:
    """Content of a file, or of the part of one that a `member` path names.

    Raises:
        OSError: when it cannot be read.
        UnreachableError: when its server does not answer.
    """
    part = part_of(path)
    if not is_url(path):
        with open(part.file, "rb") as file:
            file.seek(part.begin)
            return file.read() if part.end is None else file.read(part.end - part.begin)
    copies = _copies()
    content = copies.get(path)
    if content is None:
        (answer,) = fetch([part])
        if isinstance(answer, RefusedError):
            raise answer
        copies.put(path, content := answer)
    return content


def open_file(path: str) -> BinaryIO:
    """Opens a file to read its bytes; raises the errors of `read_bytes`."""
    return io.BytesIO(read_bytes(path)) if is_url(path) else open(path, "rb")


def arrow_file(path: str) -> str | BinaryIO:
    """What pyarrow reads a file from: its path, which it may map, or the content from a URL."""
    return open_file(path) if is_url(path) else path


def read_text(path: str) -> str:
    """Text of a file in UTF-8.

    Raises:
        InputError: when it is not; and as `read_bytes`.
    """
    if not is_url(path):
        return files.read_text(path)
    try:
        return io.TextIOWrapper(open_file(path), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text: {error}") from error


def is_file(path: str) -> bool:
    """Whether a file exists; for a URL, the server is asked even if there is a copy.

    Raises:
        UnreachableError: when its server does not answer.
    """
    if not is_url(path):
        return os.path.isfile(path)
    forget(path)
    return not refused([path])


def size_of(path: str) -> int:
    """Bytes of a file."""
    return len(read_bytes(path)) if is_url(path) else os.path.getsize(path)


def prefetch(paths: Iterable[str]) -> None:
    """Downloads the files at URLs that have no copy, many at a time.

    Refused files are skipped; reading them gives the reason.

    Raises:
        UnreachableError: when a server does not answer.
    """
    remote = [path for path in dict.fromkeys(paths) if is_url(path)]
    if not remote or not _copies().enabled:
        return
    missing = [path for path in remote if not _copies().has(path)]
    for begin in range(0, len(missing), HELD):
        chunk = missing[begin : begin + HELD]
        for path, content in zip(chunk, fetch(list(map(part_of, chunk))), strict=True):
            if isinstance(content, bytes):
                _copies().put(path, content)


def prefetch_in_thread(paths: Iterable[str]) -> Future[None]:
    """Calls `prefetch` in another thread, for which the end of the program does not wait."""
    remote = [path for path in paths if is_url(path)]
    done: Future[None] = Future()

    def work() -> None:
        try:
            prefetch(remote)
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    if remote:
        threading.Thread(target=work, daemon=True).start()
    else:
        done.set_result(None)
    return done


def refused(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Path and reason of each file at a URL that has no copy and that its server refuses.

    Requests the first byte of each. Parts of files are skipped.

    Raises:
        UnreachableError: when a server does not answer.
    """
    remote = [path for path in paths if is_url(path) and part_of(path).end is None]
    unknown = [path for path in remote if not _copies().has(path)]
    found = []
    for begin in range(0, len(unknown), PROBES):
        chunk = unknown[begin : begin + PROBES]
        for path, answer in zip(chunk, fetch([Part(p, 0, 1) for p in chunk]), strict=True):
            if isinstance(answer, RefusedError):
                found.append((path, answer.reason))
    return found


def has_copy(path: str) -> bool:
    """Whether a file at a URL can be read without its server."""
    return is_url(path) and _copies().has(path)


def renew(path: str) -> None:
    """Reads a file at a URL again, for files that list others and may have changed.

    Raises:
        OSError, UnreachableError: as `read_bytes`.
    """
    if is_url(path):
        forget(path)
        read_bytes(path)


def forget(path: str) -> bool:
    """Removes the copy of a file, so that it is downloaded again; returns whether there was one."""
    return is_url(path) and _copies().drop(path)


def with_new_copy(read: Callable[[], Result], path: str) -> Result:
    """Calls `read`, and if it fails on the copy of a remote file, again on a new copy.

    A server may have sent an incomplete file without an error, or have a better one by now.
    """
    try:
        return read()
    except Exception:  # broken files make Pillow raise nearly anything
        if not forget(path):
            raise
        return read()


def warn_if_larger(name: str, size: int) -> None:
    """Warns if the images of a data set take more bytes than may be kept."""
    if size > _copies().limit:
        warnings.warn(
            f"{name} has {size / 1e9:.3g} GB of images, and copies of remote files may take "
            f"{_copies().limit / 1e9:.3g} GB: images are downloaded in every epoch. The "
            f"environment variable {LIMIT} sets another limit",
            stacklevel=2,
        )


def _copies() -> Copies:
    given = os.environ.get(LIMIT, str(GIGABYTES))
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = -1
    if limit < 0:
        raise InputError(f"{LIMIT} must be a number of gigabytes, 0 or more, got {given!r}")
    return _opened(files.cache_folder() / "remote", limit)


@functools.cache
def _opened(folder: Path, limit: int) -> Copies:
    return Copies(folder, limit)
