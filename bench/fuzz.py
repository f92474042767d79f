"""Calls and command lines with nonsensical arguments, each of which must give a result or an error.

    python bench/fuzz.py [--calls 2000] [--lines 1000] [--out results/fuzz.json]

Hypothesis draws the arguments; calls and commands run in this process, commands through
`longtail.cli.main`. A call may return or raise `InputError`; a command may end with status 0, 1 or
2, with a line that begins with `longtail: error:` unless it is 0 or found problems in data.
Anything else, or more than a minute of processor time, is a fault and is listed.
"""

import argparse
import contextlib
import io
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

import fuzz_calls
import fuzz_lines
from longtail.cli import main as command
from longtail.errors import InputError
from longtail.files import write_json
from longtail.training.run import environment

SECONDS = 60  # of the processor, after which a call hangs
LISTED = 20  # faults that the result lists


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=2000)
    options.add_argument("--lines", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("results/fuzz.json"))
    chosen = options.parse_args()
    out = chosen.out.absolute()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        rows = {
            "calls": fuzz_calls_of(chosen.calls, chosen.seed),
            "lines": fuzz_lines_of(chosen.lines, chosen.seed),
        }
    write_json(out, {"environment": environment(), "seed": chosen.seed, **rows})
    for name, row in rows.items():
        print(name, {key: value for key, value in row.items() if key != "by_target"})


def fuzz_calls_of(count: int, number: int) -> dict[str, Any]:
    """Calls of the functions of `fuzz_calls.TARGETS`, as often each."""
    fuzz_calls.make_files()
    each = -(-count // len(fuzz_calls.TARGETS))
    outcomes = Outcomes()
    for name, (function, arguments) in fuzz_calls.TARGETS.items():
        draw(arguments, each, number, lambda a, n=name, f=function: outcomes.call(n, f, a))
    return outcomes.summary()


def fuzz_lines_of(count: int, number: int) -> dict[str, Any]:
    """Command lines of `fuzz_lines`, in a folder with data and a finished run."""
    fuzz_lines.make_files()
    outcomes = Outcomes()
    draw(fuzz_lines.lines(), count, number, outcomes.line)
    return outcomes.summary()


def draw(
    arguments: SearchStrategy[Any], count: int, number: int, then: Callable[[Any], None]
) -> None:
    """Calls `then` with so many draws."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(arguments)
    def each(given_arguments: Any) -> None:
        then(given_arguments)

    each()


class Outcomes:
    """How calls ended."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_target: dict[str, Counter[str]] = {}
        self.faults: dict[str, str] = {}
        self.longest = (0.0, "")

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Calls a function; only an `InputError` may be raised."""
        try:
            with self.timed(f"{name}{arguments!r}"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(*arguments)
            self.add(name, "returned")
        except InputError as error:
            self.add(name, "InputError" if str(error) else "InputError without a message")
        except (Exception, Hang) as error:  # what is looked for
            self.fault(name, error, repr(arguments))

    def line(self, words: list[str]) -> None:
        """Runs a command line."""
        shown, said = io.StringIO(), io.StringIO()
        name = " ".join(words[:1]) or "nothing"
        try:
            with (
                self.timed(" ".join(words)),
                contextlib.redirect_stdout(shown),
                contextlib.redirect_stderr(said),
            ):
                status = command(words)
        except (Exception, SystemExit, Hang) as error:
            self.fault(name, error, repr(words))
            return
        silent = status == 2 and "longtail: error: " not in said.getvalue()
        if silent or status not in (0, 1, 2):
            self.fault(name, RuntimeError(f"status {status}: {said.getvalue()}"), repr(words))
        else:
            self.add(name, f"status {status}")

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Ends a call that hangs, and keeps the longest time."""
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.longest = max(self.longest, (time.perf_counter() - began, what[:200]))

    def add(self, name: str, outcome: str) -> None:
        """Counts an outcome."""
        self.counts[outcome] += 1
        self.by_target.setdefault(name, Counter())[outcome] += 1

    def fault(self, name: str, error: BaseException, arguments: str) -> None:
        """Keeps the first call that failed in a way."""
        place = traceback.extract_tb(error.__traceback__)
        own = next((f for f in reversed(place) if "longtail" in f.filename), None)
        where = f"{Path(own.filename).name}:{own.lineno}" if own else "?"
        kind = f"{name}: {type(error).__name__} at {where}"
        self.faults.setdefault(kind, f"{kind}: {str(error)[:160]} {arguments}"[:600])
        self.add(name, "fault")

    def summary(self) -> dict[str, Any]:
        """What the result file holds."""
        return {
            "count": self.counts.total(),
            **dict(sorted(self.counts.items())),
            "faults": list(self.faults.values())[:LISTED],
            "longest_seconds": round(self.longest[0], 2),
            "longest": self.longest[1],
            "by_target": {name: dict(found) for name, found in self.by_target.items()},
        }


class Hang(BaseException):
    """Raised in a call that takes too long; the package does not catch it."""


def _hang(*_: Any) -> None:
    raise Hang(f"more than {SECONDS} seconds of the processor")


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _hang)
    torch.set_num_threads(1)
    main()
