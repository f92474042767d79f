"""Checkpoints: written whole, with a checksum in the name, the last two kept."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from longtail.errors import InputError
from longtail.files import whole_file

KEEP = 2
DIGITS = 16


class Checkpoints:
    """The checkpoints of a run folder.

    A file is named `epoch-NNNNNN-STEP-CHECKSUM.pt`, after the whole epochs done, the steps of the
    one that had begun, and the first 16 digits of its SHA-256. It is
    written beside its place, flushed to the disk and renamed; a file cut short is never taken for
    a whole one.

    Args:
        folder: made when the first one is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Files of the folder, oldest first."""
        return sorted(self.folder.glob("epoch-*-*.pt"))

    def last_in_words(self) -> str:
        """Which file is the last, for errors that end a training."""
        files = self.files()
        return f"the last checkpoint is {files[-1]}" if files else "there is no checkpoint yet"

    def save(self, state: dict[str, Any]) -> Path:
        """Saves a state and drops all but the last two.

        Args:
            state: tensors and plain values, with the whole epochs done as `epoch` and the steps of
                the one that had begun as `step`.

        Raises:
            OSError: when it cannot be written; the older ones stay, and the message names the last.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        checksum = hashlib.sha256(content).hexdigest()[:DIGITS]
        name = f"epoch-{state['epoch']:06d}-{state['step']:06d}-{checksum}.pt"
        path = self.folder / name
        try:
            with whole_file(path) as part:
                part.write_bytes(content)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; {self.last_in_words()}") from error
        for old in self.files()[:-KEEP]:
            old.unlink(missing_ok=True)
        return path

    def load_last(self) -> dict[str, Any] | None:
        """The last whole checkpoint, on the CPU, or None where none was ever saved.

        A broken file is named in a warning, and the one before it is taken.

        Raises:
            ValueError: when there are checkpoints and every one is broken.
        """
        files = self.files()
        broken: list[Path] = []
        for path in reversed(files):
            if _checksum(path) == path.stem.rpartition("-")[2]:
                for other in broken:  # none of the last two any more
                    other.rename(other.with_suffix(".broken"))
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            warnings.warn(f"checkpoint {path} is broken (its checksum is another)", stacklevel=2)
            broken.append(path)
        if files:
            raise InputError(f"no whole checkpoint in {self.folder}: all {len(files)} are broken")
        return None


def _checksum(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:DIGITS]
