"""The other processes of a command: starting, using and ending them."""

import os
import pickle
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from longtail.errors import InputError, LostProcessError
from longtail.text import printable

PATIENCE = 2.0  # seconds within which a process whose connection is closed must end
# Ctrl-C is for the first process; the others end when their connection to it does.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from longtail.sharing.peers import serve_parent; serve_parent()"
)


class Peer:
    """Another process, as seen by the first one.

    Args:
        name: its name in error messages.
        reader: stream of what it sends.
        writer: stream of what is sent to it.
        process: the process, if this one has started it.
    """

    def __init__(
        self,
        name: str,
        reader: BinaryIO,
        writer: BinaryIO,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._name, self._reader, self._writer, self._process = name, reader, writer, process

    def send(self, job: bytes, items: Sequence[Any]) -> None:
        """Sends a pickled function, and the items whose results are then received.

        Raises:
            LostProcessError: when the process has ended.
        """
        try:
            pickle.dump((job, items), self._writer)
            self._writer.flush()
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> Any:
        """The result of the next item, or the error that it raised in the process.

        Raises:
            LostProcessError: when the process has ended.
        """
        try:
            result, error = pickle.load(self._reader)
        except (EOFError, OSError, pickle.UnpicklingError) as gone:
            raise self._lost() from gone
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Tells the process to end: at once if it is waiting, else after its next item."""
        for stream in (self._writer, self._reader):
            with suppress(OSError):  # for data that the process has not read
                stream.close()

    def join(self) -> None:
        """Waits until a process that this one has started, and closed, has ended."""
        if self._process is None:
            return
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _lost(self) -> LostProcessError:
        how = ""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(PATIENCE)
                how = f" by signal {-status}" if status < 0 else f" with status {status}"
        return LostProcessError(f"{self._name} has ended{how} before its work was done")


def start_peer(rank: int, threads: int) -> Peer:
    """Starts a process on this machine, which imports only what its work needs.

    Args:
        rank: rank of the process, which uses the CUDA device of that number, if there are any.
        threads: number of threads for computations on a CPU.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rank)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    assert process.stdin
    assert process.stdout
    reader: Any = process.stdout
    writer: Any = process.stdin
    return Peer(f"process {rank + 1} of this command", reader, writer, process)


def serve_parent() -> None:
    """Runs in a process started by `start_peer`, until its parent ends or closes it."""
    results = os.dup(1)
    os.dup2(2, 1)  # printed output must not come between the results
    warnings.showwarning = _print_warning
    take_device(int(sys.argv[1]))
    with suppress(OSError), os.fdopen(results, "wb") as writer:
        serve(sys.stdin.buffer, writer)


def serve(reader: BinaryIO, writer: BinaryIO) -> None:
    """Sends the requested results, until the connection ends."""
    with suppress(OSError, EOFError):
        while True:
            job, items = pickle.load(reader)
            for answer in _answers(job, items):
                pickle.dump(answer, writer)
                writer.flush()


def _answers(job: bytes, items: Sequence[Any]) -> Iterator[tuple[Any, Exception | None]]:
    """Result of each item, or an error for the first one that fails."""
    try:
        for result in _unpickled(job)(items):
            yield result, None
    except Exception as error:
        error.add_note(f"In another process:\n{traceback.format_exc()}")
        yield None, _sendable(error)


def pickled(work: Any) -> bytes:
    """A function in the form that is sent to other processes.

    Raises:
        InputError: when it cannot be sent.
    """
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _refused(error) from error


def _unpickled(job: bytes) -> Any:
    try:
        return pickle.loads(job)
    except (AttributeError, ImportError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> InputError:
    return InputError(f"the model cannot be sent to other processes: devices must be 1 ({error})")


def _sendable(error: Exception) -> Exception:
    """An error, or one with the same message if pickle cannot restore it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the constructor raises for the arguments that pickle gives
        text = str(error)
        known = isinstance(error, InputError)
        other = InputError(text) if known else RuntimeError(f"{type(error).__name__}: {text}")
        other.add_note("\n".join(error.__notes__))
        return other
    return error


def take_device(rank: int) -> None:
    """Selects a CUDA device for this process, if there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())


def _print_warning(message: Any, *rest: Any, **more: Any) -> None:
    print(f"longtail: warning: {printable(str(message))}", file=sys.stderr)
