"""Collects finished runs in one result file: settings, metrics, time.

python bench/collect.py runs/a runs/b --out results/some.json
"""

import argparse
import shlex
import statistics
from pathlib import Path
from typing import Any

from longtail.files import write_json
from longtail.training import Run

SETTINGS = (
    *("backbone", "views", "epochs", "batch_size", "lr", "weight_decay"),
    *("schedule", "warmup", "milestones"),
)
FIGURES = ("accuracy", "many", "medium", "few", "macro_f1", "ece")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    runs = [Run(path) for path in given.runs]
    rows = [row_of(one) for run in runs for one in (*run.stages, run)]
    write_json(given.out, {"runs": rows})
    for row in rows:
        print({key: row[key] for key in ("stage", "method", "epochs", *FIGURES)})


def row_of(run: Run) -> dict[str, Any]:
    config, metrics = run.config, run.metrics
    speed = statistics.median(record["images_per_second"] for record in run.history)
    return {
        "stage": run.folder.name,
        "method": config["method"]["name"],
        "data": config["data"]["source"],
        "imbalance": round(run.prior.imbalance, 1),
        "train_images": int(run.prior.counts.sum()),
        "head": config["method"].get("head"),
        **{name: config[name] for name in SETTINGS},
        "seed": config["seed"],
        "data_seed": config["data"]["seed"],
        "precision": run.over_starts(lambda start: start["precision"]),
        **{name: round(100 * metrics[name], 2) for name in FIGURES},
        "selection": metrics["selection"],
        "minutes": round(sum(record["seconds"] for record in run.history) / 60, 2),
        "images_per_second": round(speed, 1),
        "command": shlex.join(run.starts[0]["command"]),
        "threads": run.over_starts(lambda start: start["threads"]),
        "packages": run.starts[-1]["packages"],
        "commit": run.commit,
    }


if __name__ == "__main__":
    main()
