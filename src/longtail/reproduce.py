"""The matrix of methods, imbalances and seeds behind the papers' figures, from one command."""

import json
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longtail.data import available_cpus
from longtail.files import write_json, write_text
from longtail.recipes import cifar_lt, find_recipe, overlay
from longtail.settings import from_arguments, to_config
from longtail.training import Run, judge

FIGURES = ("accuracy", "many", "medium", "few", "ece")
STAGES = ("first_stage", "teacher_stage")


@dataclass(frozen=True)
class Cell:
    """One method at one imbalance with one seed: a run folder, or another cell's judged anew.

    Args:
        source: the data set.
        row: name of the method, or of a variant.
        imbalance: of the training set.
        seed: of the run.
        scale: of all epochs.
        runs: folder of all run folders.
    """

    source: str
    row: str
    imbalance: int
    seed: int
    scale: float
    runs: Path

    @property
    def of(self) -> "Cell | None":
        """The cell on whose run this one stands, if it does."""
        before = {**cifar_lt.PC_SOFTMAX, **cifar_lt.FIRST_STAGE}.get(self.row)
        return Cell(**{**vars(self), "row": before}) if before else None

    @property
    def trains(self) -> bool:
        """Whether it has a run of its own."""
        return self.row not in cifar_lt.PC_SOFTMAX

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its run, all epochs scaled alike."""
        method, changes = cifar_lt.VARIANTS.get(self.row, (self.row, {}))
        settings: dict[str, Any] = overlay(find_recipe(self.source, method).settings, changes)
        settings["epochs"] = scaled(settings["epochs"], self.scale)
        for stage in STAGES:
            if "epochs" in settings.get(stage, {}):
                epochs = scaled(settings[stage]["epochs"], self.scale)
                settings[stage] = {**settings[stage], "epochs": epochs}
        return settings

    @property
    def epochs(self) -> int:
        """Epochs of its run; of two-stage methods those of the first stage."""
        if self.of:
            return self.of.epochs
        return int(self.settings.get("first_stage", self.settings)["epochs"])

    @property
    def folder(self) -> Path:
        """Its run folder, or that of the cell whose run it judges."""
        if self.of and not self.trains:
            return self.of.folder
        name = f"{self.row}-{self.imbalance}-{self.epochs}epochs-seed{self.seed}"
        return self.runs / self.source / name

    def command(self, root: str | None) -> list[str]:
        """What `longtail` is called with to train it."""
        method = cifar_lt.VARIANTS.get(self.row, (self.row, {}))[0]
        words = ["train", self.source, "--method", method]
        words += [f"--data.imbalance={self.imbalance}", f"--seed={self.seed}"]
        words += [f"--data.root={root}"] if root else []
        recipe = find_recipe(self.source, method).settings
        words += list(_options(self.settings, recipe))
        words += [f"--first={self.of.folder}"] if self.of else []
        return [*words, f"--out={self.folder}", "--resume"]


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
        raise ValueError(f"methods of {source} must be of {known}, got {unknown}")
    numbers = {"seeds": seeds, "jobs": 1 if jobs is None else jobs, "imbalances": min(imbalances)}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if not epochs_scale > 0:
        raise ValueError(f"epochs_scale must be above 0, got {epochs_scale}")
    cells = [
        Cell(source, row, imbalance, seed, epochs_scale, Path(runs))
        for seed in range(seeds)
        for imbalance in dict.fromkeys(imbalances)
        for row in chosen
    ]
    trained = _trained(cells)
    for cell in trained:
        _check(cell, root)
    todo = [cell for cell in trained if not is_done(cell)]
    jobs = jobs or _default_jobs(len(todo))
    print(f"{len(trained) - len(todo)} of {len(trained)} runs are done, {jobs} at a time")
    out = Path(out or f"results/{source}.json")
    failed = _train_all(todo, root, jobs, lambda: _write(cells, out, root))
    rows = _write(cells, out, root)
    if failed:
        raise ChildProcessError("these runs failed; the same command tries them again: " + failed)
    return rows


def row_names(source: str) -> list[str]:
    """Names of the rows: methods with a recipe, their variants, and PC-Softmax.

    Raises:
        ValueError: when there is no matrix for the source.
    """
    if source not in cifar_lt.PUBLISHED:
        raise ValueError(f"source must be one of {sorted(cifar_lt.PUBLISHED)}, got {source!r}")
    return [*cifar_lt.SETTINGS, *cifar_lt.VARIANTS, *cifar_lt.PC_SOFTMAX]


def scaled(epochs: int, scale: float) -> int:
    """Epochs of a scaled schedule; none stay none.

    Example:
        >>> scaled(200, 0.1), scaled(20, 0.01), scaled(0, 0.1)
        (20, 1, 0)
    """
    return max(1, round(epochs * scale)) if epochs else 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures beside the published ones, in Markdown: mean and deviation over seeds."""
    tables: dict[tuple[str, int, float], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        place = (row["data"], row["imbalance"], row["epochs_scale"])
        tables.setdefault(place, {}).setdefault(row["method"], []).append(row)
    return "\n\n".join(_table_of(*place, groups) for place, groups in tables.items()) + "\n"


def _table_of(
    data: str, imbalance: int, scale: float, groups: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """The table of one training set and one length of training, a line a method."""
    due = 400 if scale == 2 else 200
    lines = [
        f"| {data}, imbalance {imbalance}, percent | epochs | seeds | published, {due} epochs "
        "| all | many | medium | few | ECE | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, group in groups.items():
        published = cifar_lt.PUBLISHED[data].get(method, {}).get((imbalance, due), "n/a")
        cells = [_spread([row[name] for row in group]) for name in FIGURES]
        minutes = statistics.mean(row["minutes"] for row in group)
        about = f"{method} | {group[0]['epochs']} | {len(group)} | {published}"
        lines.append(f"| {about} | {' | '.join(cells)} | {minutes:.1f} |")
    if scale < 1:
        lines += [
            "",
            f"Every schedule is scaled by {scale:g}: a check of order and speed at a short budget, "
            "not a comparison with the published figures.",
        ]
    return "\n".join(lines)


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
    with ThreadPoolExecutor(jobs) as pool, _sigterm_as_exit():
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    cell = waiting.popleft()
                    active[pool.submit(_train, cell, root, jobs, running)] = cell
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


def _train(cell: Cell, root: str | None, jobs: int, running: set[subprocess.Popen[bytes]]) -> int:
    """Trains a cell in a process of its own; returns its exit status."""
    threads = max(1, available_cpus() // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    words = [sys.executable, "-m", "longtail.cli", *cell.command(root)]
    with subprocess.Popen(words, env=environment) as process:
        running.add(process)
        status = process.wait()
    running.discard(process)
    return status


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


def is_done(cell: Cell) -> bool:
    """Whether the cell's run has ended, with figures."""
    return (cell.folder / "config.yaml").is_file() and Run(cell.folder).finished


def _check(cell: Cell, root: str | None) -> None:
    """Refuses a run folder whose run was trained with other settings than the cell's."""
    if not (cell.folder / "config.yaml").is_file():
        return
    asked = json.loads(json.dumps(asdict(to_config(from_arguments(cell.command(root)[1:])))))
    known = {name: value for name, value in asked.items() if value != "auto"}
    if other := Run(cell.folder).differences(known):
        raise ValueError(
            f"{cell.folder} holds a run with other settings ({'; '.join(other)}): "
            "take it away, or name another folder for --runs"
        )


def _write(cells: Sequence[Cell], out: Path, root: str | None) -> list[dict[str, Any]]:
    """Puts the rows of these cells into the result file, in place of older ones of the same."""
    rows = [_row(cell, root) for cell in cells if is_done(cell)]
    own = [_place(row) for row in rows]
    before = json.loads(out.read_text(encoding="utf-8"))["runs"] if out.is_file() else []
    every = [*(row for row in before if _place(row) not in own), *rows]
    order = row_names(cells[0].source)
    every.sort(
        key=lambda r: (r["data"], -r["imbalance"], -r["epochs_scale"], order.index(r["method"]))
    )
    if every:
        write_json(out, {"runs": every})
        write_text(out.with_suffix(".md"), table(every))
    return rows


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row of the result file is about."""
    return tuple(row[name] for name in ("data", "method", "imbalance", "epochs_scale", "seed"))


def _row(cell: Cell, root: str | None) -> dict[str, Any]:
    """A row of the result file."""
    run = Run(cell.folder)
    figures = run.metrics if cell.trains else judge(run.predictions(), "uniform")
    around = json.loads((run.folder / "environment.json").read_text())
    trained = [run, *run.stages]
    if cell.of and cell.trains:
        trained.append(Run(cell.of.folder))
    history = [record for one in trained for record in one.history]
    own = cell if cell.trains or not cell.of else cell.of
    command = shlex.join(["longtail", *own.command(root)])
    if not cell.trains:
        command += f" && longtail evaluate {own.folder} --target-prior uniform"
    return {
        "data": cell.source,
        "method": cell.row,
        "imbalance": cell.imbalance,
        "epochs": cell.epochs,
        "epochs_scale": cell.scale,
        "seed": cell.seed,
        **_percent(figures),
        **{stage.folder.name: _percent(stage.metrics) for stage in run.stages},
        "views": run.config["views"],
        "selection": "last epoch",
        "minutes": round(sum(record["seconds"] for record in history) / 60, 2),
        "device": around["gpu"] or f"{around['processor']}, {around['threads']} threads",
        "precision": run.config["precision"],
        "packages": around["packages"],
        "command": command,
    }


def _percent(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(100 * metrics[name], 2) for name in FIGURES}


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values):
        return "n/a"  # a group without a class: NaN, in a result file null
    mean = f"{statistics.mean(known):.1f}"
    return f"{mean} ± {statistics.stdev(known):.1f}" if len(known) > 1 else mean


def _options(settings: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    """Options for all settings that differ from the recipe's."""
    for name, value in settings.items():
        if recipe.get(name) == value:
            continue
        if isinstance(value, Mapping) and name not in STAGES:
            inner = recipe.get(name, {})
            yield from (f"--{name}.{word[2:]}" for word in _options(value, inner))
        else:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _default_jobs(runs: int) -> int:
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(available_cpus(), runs))
