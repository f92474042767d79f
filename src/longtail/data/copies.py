"""Copies of remote files on the local disk, in a folder of bounded size."""

import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

DIGITS = 20  # of the file with the number of bytes
DIGEST = 16  # bytes before the content of a copy
_threads = threading.Lock()  # the system locks for a whole process
LEFT = 0.9  # share of the limit that is kept when copies are removed


class Copies:
    """Copies of files by name, which any number of processes write and read together.

    Each copy is a file that begins with the hash of its content, so that an incomplete one counts
    as absent. Before the copies exceed the limit, the least recently used ones are removed. If
    nothing can be written, a warning says so once, and no new copies are kept.

    Args:
        folder: where the copies are.
        limit: their maximum total number of bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._failed = False

    @property
    def enabled(self) -> bool:
        """Whether new copies are kept."""
        return self.limit > 0 and not self._failed

    def has(self, name: str) -> bool:
        """Whether there is a copy; it may still turn out to be incomplete."""
        return self._path(name).is_file()

    def get(self, name: str) -> bytes | None:
        """Content of a copy; None if there is none."""
        path = self._path(name)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        content = stored[DIGEST:]
        if stored[:DIGEST] != _digest(content):
            return None
        with suppress(OSError):  # it may have been removed since
            os.utime(path)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keeps a copy, if the limit is not below its size."""
        size = DIGEST + len(content)
        if size > self.limit or self._failed:
            return
        path = self._path(name)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self._reserve(size)
            path.parent.mkdir(exist_ok=True)
            try:
                # Not flushed to the disk, which would take longer than the download: after a power
                # cut, the hash shows whether it is complete.
                part.write_bytes(_digest(content) + content)
                with suppress(FileNotFoundError):  # another process has removed it to make room
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"remote files are not kept in {self.folder}: {error.strerror or error}. They are "
                "read from their URLs each time; the environment variable LONGTAIL_CACHE names "
                "another folder",
                stacklevel=2,
            )

    def drop(self, name: str) -> bool:
        """Removes a copy; returns whether there was one."""
        try:
            self._path(name).unlink()
        except OSError:
            return False
        return True

    def _path(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _reserve(self, size: int) -> None:
        """Counts the bytes of a new copy before it is written, and makes room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._counter() as counter:
            known = os.read(counter, DIGITS)
            # Never below the true number: bytes of removed copies count until the next cleaning.
            total = int(known) if known.isdigit() else self._clean(self.limit)
            if total + size > self.limit:
                total = self._clean(max(0, int(LEFT * self.limit) - size))
            # As many digits as before, in place: shortening a file takes milliseconds.
            os.lseek(counter, 0, os.SEEK_SET)
            os.write(counter, f"{total + size:0{DIGITS}d}".encode())

    @contextmanager
    def _counter(self) -> Iterator[int]:
        """The file with the number of bytes, locked against other threads and processes."""
        with _threads:
            handle = os.open(self.folder / "bytes", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if sys.platform != "win32":
                    fcntl.lockf(handle, fcntl.LOCK_EX)
                yield handle
            finally:
                os.close(handle)  # and the lock with it

    def _clean(self, most: int) -> int:
        """Removes the oldest copies until at most this many bytes are left; returns their number.

        Partial files of killed processes are removed in the same way.
        """
        found = []
        for folder in self.folder.iterdir():
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= most:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total


def _new_lock() -> None:
    """Gives a forked process its own lock, since a thread of its parent may hold the old one."""
    global _threads
    _threads = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
