"""A cache of image features on disk, shared between programs."""

import contextlib
import hashlib
import os
import sqlite3
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from longtail.data import Split
from longtail.data.paths import file_of
from longtail.files import cache_folder

VERSION = 1  # to be raised when the same file and weights give different features
ROWS = 500  # keys of a query; SQLite takes at least 999
UNUSED_DAYS = 60
Vector = NDArray[np.float32]


class FeatureCache:
    """Features by image, in one SQLite file per network and way of reading images.

    A file is identified by its path, size and modification time; an image in memory by its pixels.
    Committed features survive a kill or a power cut. If the database cannot be read or written (no
    space, no permission, in use, corrupt), a warning says so once, and the features are computed
    without it.

    Args:
        network: `fingerprint` of the network that computes the features.
        reading: how images are read: size, crop and precision.
        width: length of a feature vector.
    """

    def __init__(self, network: str, reading: str, width: int) -> None:
        self.width = width
        name = hashlib.sha256(f"{VERSION} {network} {reading}".encode()).hexdigest()[:32]
        self.path = cache_folder() / "features" / f"{name}.sqlite"
        self._database: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                _remove_unused(self.path.parent)
            self._database = _open(self.path)
            os.utime(self.path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def load(self, keys: Sequence[bytes]) -> dict[int, Vector]:
        """The stored vectors, by index in `keys`."""
        if self._database is None:
            return {}
        found: dict[bytes, bytes] = {}
        try:
            for begin in range(0, len(keys), ROWS):
                chunk = keys[begin : begin + ROWS]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT key, vector FROM features WHERE key IN ({marks})"
                found.update(self._database.execute(query, chunk))
        except sqlite3.Error as error:
            self._give_up(error)
        size = 4 * self.width
        return {
            index: np.frombuffer(found[key], "<f4")
            for index, key in enumerate(keys)
            if len(found.get(key, b"")) == size
        }

    def store(self, vectors: Mapping[bytes, Vector]) -> None:
        """Adds vectors, which are on disk when this returns."""
        if self._database is None:
            return
        rows = ((key, vector.astype("<f4").tobytes()) for key, vector in vectors.items())
        try:
            with self._database:  # a transaction
                self._database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: Exception) -> None:
        self.close()
        warnings.warn(
            f"the feature cache {self.path} is not used: {error}. Features are computed without "
            "it; the environment variable LONGTAIL_CACHE names another folder",
            stacklevel=3,
        )


def fingerprint(model: nn.Module) -> str:
    """Hash of a network: its architecture, weights and buffers."""
    digest = hashlib.sha256(f"{type(model).__module__} {model!r}".encode())
    # state_dict omits buffers that are not saved, such as the normalisation of the images.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def keys_of(split: Split) -> list[bytes]:
    """The identity of each image of a split: file, size and modification time, or its pixels."""
    if split.images is not None:
        return [_hash(split.images[i].numpy().tobytes()) for i in range(len(split))]
    known: dict[str, str] = {}
    return [_hash(f"{path}\0{_state(file_of(path), known)}".encode()) for path in split.paths]


def _state(file: str, known: dict[str, str]) -> str:
    if file not in known:
        try:
            status = os.stat(file)
            known[file] = f"{os.path.abspath(file)}\0{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # at a URL, or the reader will report what is wrong
            known[file] = "missing"
    return known[file]


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _open(path: Path) -> sqlite3.Connection:
    """Opens a database; a file that is not one is replaced by a new one.

    Raises:
        sqlite3.Error, OSError: when that fails.
    """
    try:
        return _connected(path)
    except sqlite3.OperationalError:  # in use, no space
        raise
    except sqlite3.DatabaseError:
        path.unlink()
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10)
    try:
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, vector BLOB)"
            )
    except sqlite3.Error:
        database.close()
        raise
    return database


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in folder.glob("*.sqlite"):
        with contextlib.suppress(FileNotFoundError):  # another program removes them too
            if path.stat().st_mtime < oldest:
                path.unlink()
