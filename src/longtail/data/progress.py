"""Progress of long checks, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

SECONDS = 10  # seconds between two lines without a terminal


@contextmanager
def progress(what: str, total: int | None, verbose: bool) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal from the start, otherwise a line every ten seconds.

    Args:
        what: name of the task.
        total: number of steps, if known.
        verbose: whether anything is shown.

    Yields: a function to call with the number of steps since the last call.
    """
    if not verbose:
        yield lambda count: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Lines(what, total).advance


class _Lines:
    """Prints a line now and then."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._of = what, "" if total is None else f" of {total:,}"
        self._done, self._shown, self._lock = 0, time.monotonic(), Lock()
        print(f"{what}: {total:,}" if total else f"{what} ...", file=sys.stderr, flush=True)

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() - self._shown > SECONDS:
                self._shown = time.monotonic()
                print(f"{self._what}: {self._done:,}{self._of}", file=sys.stderr, flush=True)
