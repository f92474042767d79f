"""What each decision of `longtail train` on own images is worth, by leaving it out.

    python bench/decisions.py NAME --folder FOLDER [--file-size 32] [--tuned-size 96]
    python bench/decisions.py --docs docs/pictures.md    # only writes the table of the result file

Head: the frozen stage at the size of the pretrained weights, its method chosen by cross-validation
of the training split. Each row below changes one thing: images at the size of the files; the
plain L2 penalty of scikit-learn (C = 1), which does not go by the variance of the features;
standardised columns; one method for every data set. Fine-tuning: the whole command at
`--tuned-size` pixels, its head before fine-tuning, and the same epochs without the average of the
weights. No choice is made on a test split.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtail.data import DataConfig
from longtail.files import write_json
from longtail.pictures import train
from longtail.pictures.compare import (
    CANDIDATES,
    Candidate,
    cross_validate,
    fit_candidate,
    recommend,
)
from longtail.pictures.train import CHOICES, FOLDS
from longtail.prior import ClassPrior
from longtail.probe import fit_head
from longtail.training import Config, Embeddings, Run, embed_dataset
from longtail.training.run import environment
from pages import write_between

BACKBONE = "efficientnet_lite0"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?")
    options.add_argument("--folder", type=Path)
    options.add_argument("--file-size", type=int)
    options.add_argument("--tuned-size", type=int)
    options.add_argument("--minutes", type=float)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/decisions.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/decisions.py", table(result))
        return
    torch.set_num_threads(1)
    by_row: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(given.seeds):
        for stage, row, metrics in measured(given, seed):
            print(seed, stage, row, metrics, flush=True)
            by_row.setdefault((stage, row), []).append(metrics)
    rows = [
        {"data": given.name, "stage": stage, "row": row, "by seed": found}
        for (stage, row), found in by_row.items()
    ]
    before = json.loads(given.out.read_text())["rows"] if given.out.is_file() else []
    rows = [row for row in before if row["data"] != given.name] + rows
    write_json(given.out, {"environment": environment(), "rows": rows})


def measured(given: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Stage, row and metrics of every variant."""
    yield from (("head", row, found) for row, found in heads(given, seed))
    if given.tuned_size:
        stage = f"fine-tuning, {given.tuned_size} pixels"
        yield from ((stage, row, found) for row, found in tuned(given, seed))


def heads(given: argparse.Namespace, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The frozen stage."""
    data = embed_dataset(DataConfig(str(given.folder)), BACKBONE)
    best = choose(data, seed)
    yield f"as by default ({best.method})", of_candidate(best, data, seed)
    if given.file_size:
        small = embed_dataset(DataConfig(str(given.folder), image_size=given.file_size), BACKBONE)
        yield f"images of {given.file_size} pixels", of_candidate(choose(small, seed), small, seed)
    (x, y), total = data.split("train"), data.split("train")[0].var(0).sum()
    prior = ClassPrior.from_labels(y, len(data.class_names))
    for row, changed in (
        ("plain L2 penalty", {"inverse_penalty": float(total)}),
        ("standardised columns", {"standardize": True}),
    ):
        head = fit_head(
            torch.from_numpy(x), torch.from_numpy(y), prior, best.method, seed=seed, **changed
        )
        yield row, metrics(head.logits(torch.from_numpy(data.split("test")[0])), data)
    for candidate in CANDIDATES:
        yield f"always {candidate.name}", of_candidate(candidate, data, seed)


def choose(data: Embeddings, seed: int) -> Candidate:
    """The candidate that `longtail train` takes."""
    x, y = map(torch.from_numpy, data.split("train"))
    rows = cross_validate(x, y, len(data.class_names), CHOICES, folds=FOLDS, seed=seed)
    return recommend(rows).candidate


def of_candidate(candidate: Candidate, data: Embeddings, seed: int) -> dict[str, float]:
    x, y = map(torch.from_numpy, data.split("train"))
    prior = ClassPrior.from_labels(y, len(data.class_names))
    logits = fit_candidate(candidate, x, y, prior, seed)
    return metrics(logits(torch.from_numpy(data.split("test")[0])), data)


def metrics(logits: torch.Tensor, data: Embeddings) -> dict[str, float]:
    """Percent over all, balanced accuracy, and mean recall of the classes with under 20 images."""
    truth = data.split("test")[1]
    right = logits.argmax(1).numpy() == truth
    classes = np.unique(truth)
    recall = np.array([right[truth == label].mean() for label in classes])
    few = ClassPrior.from_labels(data.split("train")[1]).groups()["few"].numpy()
    rare = np.isin(classes, few)
    values = {"all": right.mean(), "balanced": recall.mean(), "few": recall[rare].mean()}
    return {name: round(100 * float(value), 2) for name, value in values.items()}


def tuned(given: argparse.Namespace, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The whole command, its head, and fine-tuning without the average of the weights."""
    config = Config(
        DataConfig(str(given.folder), image_size=given.tuned_size),
        {"name": "auto"},
        minutes=given.minutes,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as out:
        run, folder = train(config, Path(out) / "run"), Path(out) / "run"
        decided = json.loads((folder / "decisions.json").read_text())
        assert decided["epochs"], "no epoch of fine-tuning fits into the minutes"
        yield f"as by default ({decided['epochs']} epochs)", of_run(run)
        yield "without fine-tuning", of_run(Run(folder / "head"))
        changes: dict[str, dict[str, Any]] = {"without average of the weights": {"ema": 0.0}}
        if not decided["pays"]:
            changes["always fine-tuned"] = {}
        for row, changed in changes.items():
            fixed = {"tune": "all", "epochs": decided["epochs"], **changed}
            method = (
                {"name": run.config["method"]["name"]} if decided["pays"] else decided["method"]
            )
            other = Config(config.data, method, seed=seed, **fixed)
            yield row, of_run(train(other, Path(out) / row))


def of_run(run: Any) -> dict[str, float]:
    names = {"all": "accuracy", "balanced": "balanced_accuracy", "few": "few"}
    return {name: round(100 * run.metrics[metric], 2) for name, metric in names.items()}


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines: mean and standard deviation over the seeds."""
    lines = ["| data | stage | | all | balanced | few |", "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        cells = [row["data"], row["stage"], row["row"]]
        for metric in ("all", "balanced", "few"):
            values = [found[metric] for found in row["by seed"]]
            deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{np.mean(values):.1f} ± {deviation:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
