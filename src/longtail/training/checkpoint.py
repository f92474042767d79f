"""Checkpoints: written atomically, with a checksum in the name; the last two are kept."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from longtail.errors import InputError
from longtail.files import file_checksum, whole_file

KEEP = 2
DIGITS = 16


class Checkpoints:
    """The checkpoints of a run folder.

    A file is named `epoch-NNNNNN-STEP-CHECKSUM.pt`: whole epochs done, steps of the epoch that has
    begun, and the first 16 digits of its SHA-256. It is written under a temporary name, flushed to
    the disk and renamed, so that a truncated file is never taken for a valid one.

    Args:
        folder: the folder; created with the first checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted(self.folder.glob("epoch-*-*.pt"))

    def last_in_words(self) -> str:
        """Names the last file, for errors that end training."""
        files = self.files()
        return f"the last checkpoint is {files[-1]}" if files else "there is no checkpoint yet"

    def save(self, state: dict[str, Any]) -> Path:
        """Saves a state and deletes all but the last two checkpoints.

        Args:
            state: tensors and plain values, with the whole epochs done as `epoch` and the steps of
                the epoch that has begun as `step`.

        Raises:
            OSError: when it cannot be written; older files stay, and the message names the last.
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

    def reject_last(self) -> None:
        """Sets the last file aside, as `.bad`, so that the one before it is the last."""
        for path in self.files()[-1:]:
            path.rename(path.with_suffix(".bad"))

    def load_last(self, *, set_aside: bool = True) -> dict[str, Any] | None:
        """The last valid checkpoint, on the CPU, or None if there is no file.

        A corrupt file is named in a warning, and the one before it is loaded.

        Args:
            set_aside: rename corrupt files, so that they do not count among the last two; a reader
                that does not continue training leaves them unchanged.

        Raises:
            InputError: when there are files and all are corrupt, or one has the name and checksum
                of a checkpoint but contains something else; no code in it is run.
        """
        files = self.files()
        corrupt: list[Path] = []
        for path in reversed(files):
            if file_checksum(path)[:DIGITS] == path.stem.rpartition("-")[2]:
                for other in corrupt if set_aside else ():
                    other.rename(other.with_suffix(".corrupt"))
                return _state_in(path)
            warnings.warn(f"checkpoint {path} is corrupt (checksum mismatch)", stacklevel=2)
            corrupt.append(path)
        if files:
            raise InputError(f"no valid checkpoint in {self.folder}: all {len(files)} are corrupt")
        return None


def _state_in(path: Path) -> dict[str, Any]:
    """The state in a file, restricted to tensors and plain values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for a pickle that torch did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # an arbitrary file can make the unpickler raise nearly anything
        state = None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(
            f"{path} is not a checkpoint of longtail: it must contain only tensors and plain values"
        )
    return state
