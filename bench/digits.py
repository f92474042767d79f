"""GML compared with plain cross-entropy on the built-in digits, over seeds.

    python bench/digits.py [--methods ce logit_adjust gml] [--seeds 3] [--out FILE]

Every run has a run folder under `--runs`; a finished one is not repeated.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from longtail import train
from longtail.files import write_json
from longtail.training.run import environment
from pages import write_between

FIGURES = ("accuracy", "many", "medium", "few", "macro_f1", "ece")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--methods", nargs="+", default=["ce", "logit_adjust", "gml"])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--runs", type=Path, default=Path("runs/bench-digits"))
    options.add_argument("--out", type=Path, default=Path("results/digits-lt.json"))
    options.add_argument("--page", type=Path, help="page to write the table into")
    given = options.parse_args()
    rows = [one(m, seed, given.runs) for m in given.methods for seed in range(given.seeds)]
    summary = {method: over_seeds(rows, method) for method in given.methods}
    rule = "test split evaluated at the last epoch; settings not chosen on it"
    content = {"environment": environment(), "rule": rule, "summary": summary, "runs": rows}
    write_json(given.out, content)
    lines = table(summary, given.seeds)
    print("\n".join(lines))
    if given.page:
        write_between(given.page, "bench/digits.py", lines)


def table(summary: dict[str, dict[str, tuple[float, float]]], seeds: int) -> list[str]:
    """The summary in Markdown."""
    lines = [
        "| digits-lt, imbalance 30 | all | many | medium | few | macro-F1 | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, figures in summary.items():
        cells = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in figures.values()]
        lines.append(f"| {' | '.join([method, *cells])} |")
    rule = "mean and standard deviation of the test accuracy in percent at the last epoch"
    return [*lines, "", f"{seeds} seeds, {rule}: `python bench/digits.py`."]


def one(method: str, seed: int, folder: Path) -> dict[str, Any]:
    out = folder / f"{method}-{seed}"
    run = train("digits-lt", method, seed=seed, out=out, resume=True)
    figures = {name: round(100 * run.metrics[name], 2) for name in FIGURES}
    history = [record for one in (*run.stages, run) for record in one.history]
    seconds = round(sum(record["seconds"] for record in history), 1)
    command = f"longtail train digits-lt --method {method} --seed {seed}"
    epochs = run.config["epochs"]
    about = {"method": method, "seed": seed, "epochs": epochs, "seconds": seconds}
    return {**about, **figures, "command": command}


def over_seeds(rows: list[dict[str, Any]], method: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation, percent."""
    values = {name: [r[name] for r in rows if r["method"] == method] for name in FIGURES}
    return {
        name: (round(statistics.mean(v), 2), round(statistics.stdev(v), 2) if len(v) > 1 else 0.0)
        for name, v in values.items()
    }


if __name__ == "__main__":
    main()
