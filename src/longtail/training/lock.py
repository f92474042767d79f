"""Locks on run folders and result files, which end with their process."""

import errno
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longtail.errors import InputError
from longtail.files import nearest_existing

if sys.platform != "win32":
    import fcntl

TAKEN = {errno.EACCES, errno.EAGAIN}
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # if not supported
_held: dict[tuple[int, str], int] = {}  # thread of each lock, by process and file
_guard = threading.Lock()


@contextmanager
def locked(file: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock that excludes other processes; the same thread may enter it again.

    The system holds the lock, and releases it however its process ends, so that a lock file left
    behind by a killed process locks nothing. The file names the holder: process, host and since
    when.

    Args:
        file: the lock file; removed at the end.
        name: what is locked, for the message.
        wait: wait for the process that has it; otherwise an error names it.

    Raises:
        InputError: when another process or thread has it.
        OSError: when the file cannot be written.
    """
    key, thread = (os.getpid(), os.path.realpath(file)), threading.get_ident()
    with _guard:  # the system locks for a whole process
        again = key in _held
        if _held.setdefault(key, thread) != thread:
            raise InputError(f"{name} is in use by another thread of this process")
    if again:
        yield
        return
    try:
        handle = _acquire(file, name, wait)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            os.close(handle)
    finally:
        del _held[key]


@contextmanager
def locked_folder(folder: Path, *, new: bool = False) -> Iterator[None]:
    """Holds the lock of a run folder; a folder that was created for it and left empty is removed.

    Args:
        folder: the run folder.
        new: it must not exist yet.

    Raises:
        FileExistsError: when it exists and should be new.
        InputError: when another process or thread writes to it, or it is not a folder.
        OSError: when nothing can be written there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    above = nearest_existing(folder)
    if above.exists() and not above.is_dir():
        raise InputError(f"out must be a folder, {above} is a file")
    try:
        folder.mkdir(parents=True, exist_ok=not new)
        with locked(folder / ".lock", str(folder)):
            yield
    finally:
        with suppress(OSError):  # where it is not empty
            for path in made:
                path.rmdir()


def is_locked_here(folder: Path) -> bool:
    """Whether this process holds the lock of a run folder."""
    return (os.getpid(), os.path.realpath(folder / ".lock")) in _held


def _acquire(file: Path, name: str, wait: bool) -> int:
    """Opens and locks a file, and writes the holder into it."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, name, wait)
            # The previous holder may have removed the file since it was opened here.
            if file.exists() and os.path.samestat(os.fstat(handle), file.stat()):
                about = {"pid": os.getpid(), "host": socket.gethostname()}
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps({**about, "since": since}).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, name: str, wait: bool) -> None:
    """Locks an open file.

    Raises:
        InputError: names the process that has the lock.
    """
    if sys.platform == "win32":  # which has no such locks
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in TAKEN:
            raise InputError(
                f"{name} is in use by {_holder(handle)}: wait until it has ended, or name "
                "another one"
            ) from error
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{name} cannot be locked ({error.strerror}): do not write to it from two processes",
            stacklevel=2,
        )


def _holder(handle: int) -> str:
    """The process that a lock file names."""
    try:
        about = json.loads(os.read(handle, 4096))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):  # it has not written it yet
        return "another process"
