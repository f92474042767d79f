"""Runs of the matrix side by side, each a process and a folder."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from longtail.data import available_cpus
from longtail.errors import InputError
from longtail.reproduce.cells import Cell, row_names
from longtail.reproduce.results import earlier_rows, write_results

Slots = Queue[dict[str, str]]  # environments that runs at the same time take turns in


def reproduce(
    source: str = "cifar100-lt",
    *,
    methods: Sequence[str] | None = None,
    imbalances: Sequence[int] = (100,),
    seeds: int = 3,
    epochs_scale: float = 1.0,
    root: str | None = None,
    runs: str | Path = "runs/reproduce",
    out: str | Path | None = None,
    jobs: int | None = None,
) -> list[dict[str, Any]]:
    """Trains whatever is not trained yet of a matrix, and writes its figures.

    A run that was interrupted goes on from its last checkpoint; one that is done is read, not run
    again. After every run its row enters the result file; rows of other runs stay there.

    Args:
        source: `cifar100-lt` or `cifar10-lt`.
        methods: rows of the matrix, see `row_names`; all of them when not given.
        imbalances: of the training sets.
        seeds: 0 to `seeds` - 1.
        epochs_scale: factor on all epochs; 0.1 is a tenth of the papers' schedules, 2 the long.
        root: folder of the data files.
        runs: folder of the run folders.
        out: JSON file; `results/SOURCE.json` when not given. The table lies beside it as Markdown.
        jobs: runs at the same time. When not given: one for each core on a CPU, since a small
            network gains little from a second core, and 1 on a GPU.

    Returns: the rows of these runs.
    Raises:
        ValueError: when nobody knows the source or a method, a number is too small, or a run folder
            holds a run with other settings; before anything is trained.
        ChildProcessError: when runs failed, after all others are done; it names them.
    """
    known = row_names(source)
    methods = [methods] if isinstance(methods, str) else methods
    chosen = list(dict.fromkeys(methods or known))
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(f"methods of {source} must be of {known}, got {unknown}")
    numbers = {"seeds": seeds, "jobs": 1 if jobs is None else jobs, "imbalances": min(imbalances)}
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name} must be 1 or more, got {value}")
    if not epochs_scale > 0:
        raise InputError(f"epochs_scale must be above 0, got {epochs_scale}")
    cells = [
        Cell(source, row, imbalance, seed, epochs_scale, Path(runs))
        for seed in range(seeds)
        for imbalance in dict.fromkeys(imbalances)
        for row in chosen
    ]
    out = Path(out or f"results/{source}.json")
    earlier_rows(out)  # what it cannot be is said before anything is trained
    trained = _trained(cells)
    for cell in trained:
        cell.check(root)
    todo = [cell for cell in trained if not cell.done]
    jobs = jobs or _default_jobs(len(todo))
    print(f"{len(trained) - len(todo)} of {len(trained)} runs are done, {jobs} at a time")
    failed = _train_all(todo, root, jobs, lambda: write_results(cells, out, root))
    rows = write_results(cells, out, root)
    if failed:
        raise ChildProcessError("these runs failed; the same command tries them again: " + failed)
    return rows


def _trained(cells: Sequence[Cell]) -> list[Cell]:
    """Cells with a run of their own, those that others stand on first."""
    needed = [cell.of for cell in cells if cell.of]
    return list(dict.fromkeys([*needed, *(cell for cell in cells if cell.trains)]))


def _train_all(todo: Sequence[Cell], root: str | None, jobs: int, then: Callable[[], Any]) -> str:
    """Trains cells as processes side by side, each after the one that it stands on."""
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
                process.terminate()  # it saves its state and leaves
            raise
    return ", ".join(failed)


def _train(
    cell: Cell, root: str | None, slots: Slots, running: set[subprocess.Popen[bytes]]
) -> int:
    """Trains a cell in a process of its own; returns its exit status."""
    words = [sys.executable, "-m", "longtail.cli", *cell.command(root)]
    slot = slots.get()
    try:
        with subprocess.Popen(words, env={**os.environ, **slot}) as process:
            running.add(process)
            status = process.wait()
        running.discard(process)
    finally:
        slots.put(slot)
    return status


def _slots(jobs: int) -> Slots:
    """The share of the machine that each of so many runs has, as its environment says it."""
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
    """Lets SIGTERM end the command as an error does: its processes are told before it goes."""

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
