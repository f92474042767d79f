"""LADE's Tables 9 and 10: shifted test sets, and calibration on the balanced one.

Hong et al., CVPR 2021, arXiv 2012.00321, trained at imbalance 50 on their own network.
"""

import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longtail.reproduce.cells import Cell
from longtail.reproduce.matrix import make_cells, train_cells
from longtail.reproduce.results import ResultFile, Row, kept_by
from longtail.shift.protocol import set_name
from longtail.training import Run, evaluate_protocol

NAME = "lade-shift"
SOURCE = "cifar100-lt"
IMBALANCE = 50
# Rows of the tables: the row of the matrix whose run is evaluated, and the prior it is adjusted to.
ROWS = {
    "softmax": ("ce_branched", "raw"),
    "pc_softmax": ("ce_branched", "known"),
    "lade": ("lade", "known"),
}
# Published accuracies in percent, from forward 50 over balanced to backward 50.
ACCURACY = {
    "softmax": (65.9, 63.4, 59.7, 55.6, 50.1, 45.5, 40.8, 35.2, 30.5, 26.8, 23.9),
    "pc_softmax": (66.0, 63.2, 59.2, 55.9, 52.4, 49.4, 47.5, 46.7, 46.2, 47.4, 49.0),
    "lade": (67.4, 64.7, 60.2, 56.3, 52.8, 50.5, 48.2, 47.4, 46.6, 48.1, 49.4),
}
# Published calibration on the balanced test set; ECE with 20 bins.
CALIBRATION = {
    "softmax": {"ece": 0.249, "brier": 0.769, "nll": 2.50},
    "pc_softmax": {"ece": 0.174, "brier": 0.678, "nll": 2.10},
    "lade": {"ece": 0.148, "brier": 0.658, "nll": 2.02},
}
METRICS = {"ece": "ECE", "classwise_ece": "class-wise ECE", "brier": "Brier", "nll": "NLL"}


def reproduce_lade_shift(
    seeds: int,
    epochs_scale: float,
    root: str | None,
    runs: str | Path,
    out: str | Path | None,
    jobs: int | None,
) -> list[dict[str, Any]]:
    """Trains softmax and LADE if their runs are missing, and evaluates them on shifted sets.

    Arguments, result and errors are those of `longtail.api.reproduce`.
    """
    out = Path(out or f"results/{NAME}.json")
    file = ResultFile(out, _identity, shift_table)  # an invalid one is rejected before training
    trained = dict.fromkeys(row for row, _ in ROWS.values())
    cells = make_cells(SOURCE, list(trained), [IMBALANCE], seeds, epochs_scale, runs, kept_by(out))
    return train_cells(cells, file, root, jobs, _rows)


def _identity(row: Row) -> tuple[Any, ...]:
    return -row["epochs_scale"], [*ROWS].index(row["method"]), row["seed"]


def _rows(cell: Cell) -> list[dict[str, Any]]:
    """The rows of the tables for one run."""
    run = Run(cell.folder)
    columns = evaluate_protocol(run.predictions())
    balanced = next(column for column in columns if column["ratio"] == 1)
    words = ["longtail", "reproduce", NAME, "--epochs-scale", f"{cell.scale:g}"]
    return [
        {
            "method": method,
            "seed": cell.seed,
            "epochs": cell.epochs,
            "epochs_scale": cell.scale,
            "accuracy": {
                _title(column): round(100 * column["scores"][prior]["accuracy"], 2)
                for column in columns
            },
            "balanced": {name: round(balanced["scores"][prior][name], 4) for name in METRICS},
            "selection": "last epoch",
            "minutes": round(sum(record["seconds"] for record in run.history) / 60, 2),
            "commit": run.commit,
            "command": shlex.join([*words, "--seeds", str(cell.seed + 1)]),
        }
        for method, (row, prior) in ROWS.items()
        if row == cell.row
    ]


def _title(column: Mapping[str, Any]) -> str:
    """Short name of a test set, such as `F50`, `balanced` or `B2`."""
    return "balanced" if column["ratio"] == 1 else set_name(column["direction"], column["ratio"])


def shift_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Both tables in Markdown, for each length of training: means over seeds, and published."""
    scales = sorted({row["epochs_scale"] for row in rows}, reverse=True)
    return "\n".join(
        line
        for scale in scales
        for line in _tables([row for row in rows if row["epochs_scale"] == scale], scale)
    )


def _tables(rows: Sequence[Mapping[str, Any]], scale: float) -> Iterator[str]:
    """Lines of both tables for one length of training."""
    of = {method: [row for row in rows if row["method"] == method] for method in ROWS}
    groups = {method: group for method, group in of.items() if group}
    sets = list(rows[0]["accuracy"])
    title = f"accuracy, percent ({SOURCE}, imbalance {IMBALANCE})"
    yield from _head(title, sets)
    for method, group in groups.items():
        means = [f"{statistics.mean(row['accuracy'][name] for row in group):.1f}" for name in sets]
        yield _line(method, group[0]["epochs"], len(group), *means)
        yield _line(f"{method}, published", 200, "", *ACCURACY[method])
    yield ""
    yield from _head("balanced test set", METRICS.values())
    for method, group in groups.items():
        means = [
            f"{statistics.mean(row['balanced'][name] for row in group):.4f}" for name in METRICS
        ]
        yield _line(method, group[0]["epochs"], len(group), *means)
        yield _line(
            f"{method}, published", 200, "", *(CALIBRATION[method].get(m, "n/a") for m in METRICS)
        )
    yield ""
    if scale < 1:
        yield f"Every schedule is scaled by {scale:g}: a check that all of it runs.\n"


def _head(title: str, names: Iterable[str]) -> Iterator[str]:
    headings = [title, "epochs", "seeds", *names]
    yield _line(*headings)
    yield "|---" * len(headings) + "|"


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
