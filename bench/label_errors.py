"""Suspected label errors after flipping some labels, compared with confident learning.

    python bench/label_errors.py NAME --folder FOLDER [--image-size N] [--seeds 3] [--out FILE]
    python bench/label_errors.py --docs docs/pictures.md    # only writes the table

3 % of the training labels are replaced by another class at random, rare classes included. Features
of EfficientNet-Lite0; every training image is predicted by 5-fold cross-validation. Rows:
`longtail`, the rule of the report (`longtail.metrics.suspected_label_errors`) with a logit-adjusted
head, whose logits express the uniform prior; `longtail, training prior`, the same rule with a
cross-entropy head; and `cleanlab`, its `find_label_issues` with the cross-entropy head, where the
package is installed. Precision and recall in percent, over all and by the size of the class that
the (wrong) label names; of all seeds together.
"""

import argparse
import importlib.metadata
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.data import DataConfig
from longtail.files import write_json
from longtail.metrics import score_samples, suspected_label_errors
from longtail.pictures.compare import stratified_folds
from longtail.prior import ClassPrior
from longtail.probe import fit_head
from longtail.training import embed_dataset
from longtail.training.run import environment
from pages import write_between

SHARE = 0.03
FOLDS = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?")
    options.add_argument("--folder", type=Path)
    options.add_argument("--image-size", type=int)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/label_errors.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/label_errors.py", table(result))
        return
    torch.set_num_threads(1)
    config = DataConfig(str(given.folder), image_size=given.image_size)
    features, labels = map(
        torch.from_numpy, embed_dataset(config, "efficientnet_lite0").split("train")
    )
    counted: dict[str, list[dict[str, NDArray[Any]]]] = defaultdict(list)
    groups = ClassPrior.from_labels(labels).groups()
    for seed in range(given.seeds):
        noisy, flipped = flip(labels, seed)
        for row, suspects in found(features, noisy, seed).items():
            suspected = torch.zeros(len(labels), dtype=torch.bool)
            suspected[suspects] = True
            part = {name: torch.isin(noisy, classes) for name, classes in groups.items()}
            part["all"] = torch.ones_like(flipped)
            counted[row].append(
                {
                    name: np.array(
                        [
                            int((suspected & flipped & inside).sum()),
                            int((suspected & inside).sum()),
                            int((flipped & inside).sum()),
                        ]
                    )
                    for name, inside in part.items()
                }
            )
    rows = [scores(given.name, row, results) for row, results in counted.items()]
    print(json.dumps(rows, indent=1))
    keep(given.out, given.name, rows, [len(labels), int(labels.max()) + 1], given.seeds)


def flip(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Labels with some replaced by another class, and which."""
    generator = torch.Generator().manual_seed(seed)
    flipped = torch.zeros(len(labels), dtype=torch.bool)
    flipped[torch.randperm(len(labels), generator=generator)[: round(SHARE * len(labels))]] = True
    classes = int(labels.max()) + 1
    others = torch.randint(1, classes, (len(labels),), generator=generator)
    return torch.where(flipped, (labels + others) % classes, labels), flipped


def found(features: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor]:
    """Suspects of each row."""
    adjusted = out_of_sample(features, labels, "logit_adjust", seed)
    plain = out_of_sample(features, labels, "ce", seed)
    rows = {
        "longtail": suspected_label_errors(score_samples(adjusted, labels)),
        "longtail, training prior": suspected_label_errors(score_samples(plain, labels)),
    }
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return rows
    issues = find_label_issues(labels.numpy(), plain.softmax(1).numpy(), n_jobs=1)
    return rows | {"cleanlab": torch.from_numpy(np.flatnonzero(issues))}


def out_of_sample(features: Tensor, labels: Tensor, method: str, seed: int) -> Tensor:
    """Logits of each image by a head that was fitted without it."""
    classes = int(labels.max()) + 1
    logits = torch.zeros(len(labels), classes, dtype=torch.float64)
    fold = stratified_folds(labels, FOLDS, seed)
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        prior = ClassPrior.from_labels(labels[train], classes)
        fitted = fit_head(features[train], labels[train], prior, method, seed=seed)
        logits[test] = fitted.logits(features[test]).double()
    return logits


def scores(name: str, row: str, results: list[dict[str, NDArray[Any]]]) -> dict[str, Any]:
    """Precision and recall in percent, of all seeds together."""
    made: dict[str, Any] = {"data": name, "row": row}
    for group in results[0]:
        hits, suspects, flips = sum(result[group] for result in results)
        made[group] = {
            "precision": round(100 * hits / suspects, 1) if suspects else None,
            "recall": round(100 * hits / flips, 1) if flips else None,
            "suspects": int(suspects),
            "flipped": int(flips),
        }
    return made


def keep(path: Path, name: str, rows: list[Any], size: list[int], seeds: int) -> None:
    """Replaces the older rows of a data set."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    others = [row for row in known.get("rows", []) if row["data"] != name]
    try:
        cleanlab = importlib.metadata.version("cleanlab")
    except importlib.metadata.PackageNotFoundError:
        cleanlab = None
    write_json(
        path,
        {
            "command": "python bench/label_errors.py NAME --folder FOLDER",
            "environment": environment(),
            "cleanlab": cleanlab,
            "images and classes": {**known.get("images and classes", {}), name: size},
            "share": SHARE,
            "seeds": seeds,
            "rows": [*others, *rows],
        },
    )


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    groups = ("all", "many", "medium", "few")
    lines = [
        f"| data | | {' | '.join(f'{group}: precision / recall' for group in groups)} |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [
            "n/a" if not row[g]["flipped"] else f"{row[g]['precision']} / {row[g]['recall']}"
            for g in groups
        ]
        lines.append(f"| {row['data']} | {row['row']} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
