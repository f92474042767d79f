"""The result file of the matrix, and its table next to the published results."""

import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from longtail.errors import InputError
from longtail.files import check_out, read_values, write_json, write_text
from longtail.recipes import cifar_lt
from longtail.reproduce.cells import Cell, row_names
from longtail.training import Run, evaluate_predictions
from longtail.training.lock import locked
from longtail.weights import write_weights

METRICS = ("accuracy", "many", "medium", "few", "ece")
Row = dict[str, Any]


class ResultFile:
    """The rows of a table in a JSON file, with the table in Markdown next to it.

    Args:
        path: the JSON file, which may not exist yet.
        identity: identifies a row by its sort key.
        table: makes the table of rows.

    Raises:
        InputError: when the name does not end in .json, or the file cannot be written or contains
            something else.
    """

    def __init__(
        self,
        path: Path,
        identity: Callable[[Row], tuple[Any, ...]],
        table: Callable[[Sequence[Row]], str],
    ) -> None:
        if path.suffix != ".json":
            raise InputError(f"out of reproduce must be a .json file, got {path}")
        check_out(path, "reproduce")
        self.path, self.identity, self.table = path, identity, table
        self.rows()

    def rows(self) -> list[Row]:
        """The rows of the file, none if it does not exist."""
        values = read_values(self.path) if self.path.exists() else {"runs": []}
        try:
            if not isinstance(values["runs"], list):
                raise TypeError("runs must be a list")
            rows = sorted(values["runs"], key=self.identity)
            self.table(rows)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"out of reproduce must be a result file of the same table, {self.path} is not "
                f"({type(error).__name__}: {error})"
            ) from error
        return rows

    def add(self, rows: Sequence[Row]) -> None:
        """Writes rows to the file, where they replace older ones.

        Waits for any other command that writes to the same file, so that no row is lost.
        """
        if not rows:
            return
        own = [self.identity(row) for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        with locked(lock, str(self.path), wait=True):
            others = [row for row in self.rows() if self.identity(row) not in own]
            every = sorted([*others, *rows], key=self.identity)
            text = self.table(every)  # before anything is written
            write_json(self.path, {"runs": every})
            write_text(self.path.with_suffix(".md"), text)


def matrix_file(out: Path, source: str) -> ResultFile:
    """The result file of the matrix of a data set."""
    order = {name: number for number, name in enumerate(row_names(source))}

    def identity(row: Row) -> tuple[Any, ...]:
        number = order.get(row["method"], len(order))  # a method that no longer exists comes last
        about = row["data"], -row["imbalance"], -row["epochs_scale"]
        return *about, number, row["method"], row["seed"]

    return ResultFile(out, identity, table)


def write_results(
    cells: Sequence[Cell],
    file: ResultFile,
    root: str | None,
    rows_of: Callable[[Cell], list[Row]],
) -> list[Row]:
    """Writes the rows of finished cells to the result file, and weights next to it.

    Returns: the rows.
    """
    keep_weights(cells, file.path, root)
    rows = [row for cell in cells if cell.done for row in rows_of(cell)]
    file.add(rows)
    return rows


def kept_by(out: Path) -> Path:
    """The folder of the weights that belong to a result file."""
    return out.parent / "weights"


def keep_weights(cells: Sequence[Cell], out: Path, root: str | None) -> None:
    """Writes the weights of finished runs of full length into `weights` next to the result file.

    Those of a run that other cells use are kept as well, since the others can be trained from them.
    Weights that are newer than their run are left unchanged.
    """
    for cell in dict.fromkeys([*(cell.of for cell in cells if cell.of), *cells]):
        if cell.scale < 1 or not cell.trains or not cell.done:
            continue
        path = kept_by(out) / f"{cell.weights}.safetensors"
        ended = (cell.folder / "metrics.json").stat().st_mtime
        if not path.exists() or path.stat().st_mtime < ended:
            write_weights(Run(cell.folder), path, root)


def matrix_row(cell: Cell, root: str | None) -> Row:
    """The row of a matrix for one cell."""
    run = Run(cell.folder)
    metrics = run.metrics if cell.trains else evaluate_predictions(run.predictions(), "uniform")
    trained = [run, *run.stages]
    if cell.of and cell.trains and cell.of.done:
        trained.append(Run(cell.of.folder))
    history = [record for one in trained for record in one.history]
    own = cell if cell.trains or not cell.of else cell.of
    words = ["longtail", "reproduce", cell.source, "--methods", cell.row]
    words += ["--imbalance", str(cell.imbalance), "--epochs-scale", f"{cell.scale:g}"]
    words += ["--seeds", str(cell.seed + 1)]
    return {
        "data": cell.source,
        "method": cell.row,
        "imbalance": cell.imbalance,
        "epochs": cell.epochs,
        "epochs_scale": cell.scale,
        "seed": cell.seed,
        **_percent(metrics),
        **{stage.folder.name: _percent(stage.metrics) for stage in run.stages},
        "views": run.config["views"],
        "selection": "last epoch",
        "minutes": round(sum(record["seconds"] for record in history) / 60, 2),
        "device": run.over_starts(
            lambda start: start["gpu"] or f"{start['processor']}, {start['threads']} threads"
        ),
        "precision": run.over_starts(lambda start: start["precision"]),
        "packages": run.starts[-1]["packages"] if run.starts else None,
        "commit": run.commit,
        "command": shlex.join(words),
        "settings": own.config(root),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of results and published results: mean and standard deviation over seeds."""
    tables: dict[tuple[str, int, float], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        about = (row["data"], row["imbalance"], row["epochs_scale"])
        tables.setdefault(about, {}).setdefault(row["method"], []).append(row)
    return "\n\n".join(_table_of(*about, groups) for about, groups in tables.items()) + "\n"


def _table_of(
    data: str, imbalance: int, scale: float, groups: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """The table for one training set and one training length, one line per method."""
    due = 400 if scale == 2 else 200
    lines = [
        f"| {data}, imbalance {imbalance}, percent | epochs | seeds | published, {due} epochs "
        "| all | many | medium | few | ECE | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, group in groups.items():
        published = cifar_lt.published(data, method, imbalance, due)
        cells = [_spread([row[name] for row in group]) for name in METRICS]
        minutes = statistics.mean(row["minutes"] for row in group)
        about = f"{method} | {group[0]['epochs']} | {len(group)} | {published}"
        lines.append(f"| {about} | {' | '.join(cells)} | {minutes:.1f} |")
    if scale < 1:
        lines += [
            "",
            f"Every schedule is scaled by {scale:g}: a check that all of it runs at a short "
            "budget, not a comparison with the published results, nor of one method with another.",
        ]
    return "\n".join(lines)


def _percent(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(100 * metrics[name], 2) for name in METRICS}


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values):
        return "n/a"  # a group without a class: NaN, or null in a result file
    mean = f"{statistics.mean(known):.1f}"
    return f"{mean} ± {statistics.stdev(known):.1f}" if len(known) > 1 else mean
