"""Parallel runs of the matrix, each with its own process and folder."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from longtail.data import available_cpus
from longtail.errors import InputError
from longtail.files import write_text
from longtail.ranges import MAX_COUNT, MAX_WORKERS, check_range
from longtail.reproduce.cells import Cell, row_names
from longtail.reproduce.results import (
    ResultFile,
    Row,
    kept_by,
    matrix_file,
    matrix_row,
    write_results,
)

STDERR = 2  # the standard output is for the results
Slots = Queue[dict[str, str]]  # environments that runs at the same time take turns in


def train_matrix(
    source: str,
    methods: Sequence[str] | None,
    imbalance: Sequence[int],
    seeds: int,
    epochs_scale: float,
    root: str | None,
    runs: str | Path,
    out: str | Path | None,
    jobs: int | None,
) -> list[dict[str, Any]]:
    """Trains the runs of a matrix that are missing, and writes its results.

    Arguments, result and errors are those of `longtail.api.reproduce`.
    """
    known = row_names(source)
    methods = [methods] if isinstance(methods, str) else methods
    chosen = list(dict.fromkeys(methods or known))
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(f"methods of {source} must be of {known}, got {unknown}")
    out = Path(out or f"results/{source}.json")
    cells = make_cells(source, chosen, imbalance, seeds, epochs_scale, runs, kept_by(out))
    file = matrix_file(out, source)  # an invalid one is rejected before anything is trained
    return train_cells(cells, file, root, jobs, lambda cell: [matrix_row(cell, root)])


def make_cells(
    source: str,
    rows: Sequence[str],
    imbalance: Sequence[int],
    seeds: int,
    epochs_scale: float,
    runs: str | Path,
    kept: Path,
) -> list[Cell]:
    """The cells of a matrix of rows, imbalances and seeds.

    Raises:
        InputError: for a number out of range.
    """
    check_range("seeds", seeds, least=1, most=MAX_COUNT)
    for number in imbalance:
        check_range("imbalance", number, least=1)
    check_range("epochs_scale", epochs_scale, above=0)
    return [
        Cell(source, row, number, seed, epochs_scale, Path(runs), kept)
        for seed in range(seeds)
        for number in dict.fromkeys(imbalance)
        for row in rows
    ]


def train_cells(
    cells: Sequence[Cell],
    file: ResultFile,
    root: str | None,
    jobs: int | None,
    rows_of: Callable[[Cell], list[Row]],
) -> list[Row]:
    """Trains the runs of cells that are missing, and writes the results after each.

    Args:
        cells: the cells.
        file: the result file.
        root: folder of the data files.
        jobs: number of runs at a time; default: one per GPU; without a GPU, one per core.
        rows_of: the results of a cell.

    Returns: the results.
    Raises:
        InputError: for `jobs` below 1, or a run folder with other settings.
        ChildProcessError: when runs failed, after all others are done; it names them.
    """
    if jobs is not None:
        check_range("jobs", jobs, least=1, most=MAX_WORKERS)
    write = partial(write_results, cells, file, root, rows_of)
    trained = _trained(cells)
    for cell in trained:
        cell.check(root)
    todo = [cell for cell in trained if not cell.done]
    jobs = jobs or _default_jobs(len(todo))
    done = f"{len(trained) - len(todo)} of {len(trained)} runs are done"
    print(f"{done}, {jobs} at a time", file=sys.stderr)
    if failed := _train_all(todo, root, jobs, write):
        raise ChildProcessError("these runs failed; the same command repeats them: " + failed)
    return write()


def _trained(cells: Sequence[Cell]) -> list[Cell]:
    """Cells with a run of their own, starting with those that others use."""
    needed = [cell.needs for cell in cells if cell.needs]
    return list(dict.fromkeys([*needed, *(cell for cell in cells if cell.trains)]))


def _train_all(todo: Sequence[Cell], root: str | None, jobs: int, then: Callable[[], Any]) -> str:
    """Trains cells as parallel processes, each after the one whose run it uses."""
    waiting = deque(cell for cell in todo if cell.of not in todo)
    failed = []
    active: dict[Future[int], Cell] = {}
    running: set[subprocess.Popen[bytes]] = set()
    slots = _slots(jobs)
    with ThreadPoolExecutor(jobs) as pool, _sigterm_as_exit():
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    cell = waiting.popleft()
                    active[pool.submit(_train, cell, root, slots, running)] = cell
                for future in wait(active, return_when=FIRST_COMPLETED).done:
                    cell = active.pop(future)
                    if future.result():
                        lost = [cell, *(after for after in todo if after.of == cell)]
                        failed += [one.folder.as_posix() for one in lost]
                    else:
                        waiting.extendleft(after for after in todo if after.of == cell)
                    then()
        except BaseException:
            for process in list(running):
                process.terminate()  # it saves its state and exits
            raise
    return ", ".join(failed)


def _train(
    cell: Cell, root: str | None, slots: Slots, running: set[subprocess.Popen[bytes]]
) -> int:
    """Trains a cell in its own process; returns its exit status."""
    config = cell.folder.with_name(f"{cell.folder.name}.yaml")
    write_text(config, yaml.safe_dump(cell.config(root), sort_keys=False))
    words = [sys.executable, "-m", "longtail.cli", "train", "--config", str(config)]
    words += ["--out", str(cell.folder), "--resume"]
    slot = slots.get()
    try:
        with subprocess.Popen(words, env={**os.environ, **slot}, stdout=STDERR) as process:
            running.add(process)
            status = process.wait()
        running.discard(process)
    finally:
        slots.put(slot)
    return status


def _slots(jobs: int) -> Slots:
    """The share of the machine that each of the parallel runs gets, as environment variables."""
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, available_cpus() // jobs)))
    gpus = _gpus()
    slots: Slots = Queue()
    for number in range(jobs):
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        slots.put({"OMP_NUM_THREADS": threads, **gpu})
    return slots


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    numbers = [str(number) for number in range(torch.cuda.device_count())]
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [name for name, _ in zip(names if names[0] else numbers, numbers, strict=False)]


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Makes SIGTERM end the command like an error, so that it stops its processes first."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # others must not set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _default_jobs(runs: int) -> int:
    return max(1, min(len(_gpus()) or available_cpus(), runs))
