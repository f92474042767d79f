"""The default command on folders of images, compared with alternatives.

    python bench/pictures.py NAME --folder FOLDER [--seeds 3] [--rows ROW ...] [--out FILE]
    python bench/pictures.py NAME --folder FOLDER --image-size 64 --minutes 3    # reduced
    python bench/pictures.py NAME --folder FOLDER --rows "longtail train" "longtail train, 0.1.0" \
        --before CHECKOUT/src    # the command of an older version
    python bench/pictures.py --docs docs/pictures.md    # only writes the table of the result file

All rows use the same features: EfficientNet-Lite0 with its ImageNet weights, at the size of the
weights unless `--image-size` is given; only the default command trains on images of 16 pixels or
less from scratch. `cross-entropy, fine-tuned` trains the same backbone for the time that the
default command may take for it, with the same settings; neither of the two has a row if an epoch
does not fit. `longtail train` is the default command as a user would type it, and chooses its
method by cross-validation of the training split; the rows of scikit-learn and imbalanced-learn
choose their C on a held-out fifth of the training split. Every row that depends on a seed is fitted
with each of the seeds, and no choice is made on a test split. Seconds are processor seconds of one
thread per seed, without the features, which are computed once; their cost is in
results/features.json. Intervals are 95 % bootstrap intervals over the images of each class, of the
mean over seeds; `behind` is what the row lacks to the default command, with paired images.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from imblearn.ensemble import BalancedBaggingClassifier, BalancedRandomForestClassifier
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from longtail.data import DataConfig
from longtail.files import write_json
from longtail.pictures import train
from longtail.prior import ClassPrior
from longtail.sklearn import LongTailClassifier
from longtail.training import Config, Embeddings, Run, embed_dataset
from longtail.training.run import environment
from pages import write_between

RESAMPLES = 1000
DEFAULT = "longtail train"
BEFORE = "longtail train, 0.1.0"
TUNED = "cross-entropy, fine-tuned"
WITHOUT_SEED = ("LogisticRegression", "LogisticRegression balanced")
WITHOUT_SEED += ("LongTailClassifier logit_adjust", "LongTailClassifier lade")


def estimators(seed: int = 0) -> dict[str, tuple[Any, dict[str, list[float]]]]:
    """Estimators, and their candidate values of C."""
    head = LogisticRegression(max_iter=300)
    return {
        "LogisticRegression": (head, {"C": [0.01, 0.1, 1.0]}),
        "LogisticRegression balanced": (
            LogisticRegression(class_weight="balanced", max_iter=300),
            {"C": [0.001, 0.01, 0.1]},
        ),
        "BalancedRandomForest": (
            BalancedRandomForestClassifier(
                n_estimators=100, sampling_strategy="all", replacement=True, random_state=seed
            ),
            {},
        ),
        "BalancedBagging, 10 LogisticRegression": (
            BalancedBaggingClassifier(head, n_estimators=10, random_state=seed),
            {"estimator__C": [0.01, 0.1]},
        ),
        "LongTailClassifier logit_adjust": (LongTailClassifier("logit_adjust"), {}),
        "LongTailClassifier lade": (LongTailClassifier("lade"), {}),
        "LongTailClassifier gml": (LongTailClassifier("gml", random_state=seed), {}),
    }


def main() -> None:
    names = [DEFAULT, TUNED, *estimators(), BEFORE]
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?")
    options.add_argument("--folder", type=Path)
    options.add_argument("--rows", nargs="+", default=names[:-1], choices=names)
    options.add_argument("--image-size", type=int)
    options.add_argument("--minutes", type=float)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/pictures.json"))
    options.add_argument("--before", type=Path)
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/pictures.py", table(result))
        return
    torch.set_num_threads(1)
    config = DataConfig(str(given.folder), image_size=given.image_size)
    data = embed_dataset(config, "efficientnet_lite0")
    size = {
        "training images": len(data.split("train")[1]),
        "test images": len(data.split("test")[1]),
        "imbalance": imbalance(data),
    }
    right: dict[str, np.ndarray] = {}
    for name in given.rows:
        began = processor_seconds()
        seeds = 1 if name in WITHOUT_SEED else given.seeds
        found = []
        for seed in range(seeds):
            if name in (DEFAULT, TUNED):
                found.append(trained(name, given, seed))
            elif name == BEFORE:
                found.append(trained_before(given, seed))
            else:
                found.append(fitted(name, data, seed))
        predicted, details = zip(*found, strict=True)
        right[name] = np.stack(predicted) == data.split("test")[1]
        row = {"data": given.name, "row": name, **scores(right[name], right.get(DEFAULT), data)}
        row |= {"by seed": details, "seeds": seeds, **size}
        row["seconds"] = round((processor_seconds() - began) / seeds, 1)
        print(json.dumps(row), flush=True)
        keep(given.out, row)


def processor_seconds() -> float:
    """Of this process and of those that it has started."""
    return sum(os.times()[:4])


def imbalance(data: Embeddings) -> float:
    """Images of the largest over those of the smallest class."""
    counts = np.bincount(data.split("train")[1])
    return round(float(counts.max() / counts.min()), 1)


def trained(name: str, given: argparse.Namespace, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions of the default command, or of fine-tuned cross-entropy, and what was decided."""
    config = Config(
        DataConfig(str(given.folder), image_size=given.image_size),
        {"name": "auto" if name == DEFAULT else "ce"},
        tune="auto" if name == DEFAULT else "all",
        minutes=given.minutes,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as out:
        run = train(config, Path(out) / "run")
        assert isinstance(run, Run)
        kept = {key: run.config[key] for key in ("tune", "epochs")}
        kept |= {"method": run.model_card()["method"], "minutes": given.minutes}
        return run.predictions().logits.argmax(1).numpy(), kept


def trained_before(given: argparse.Namespace, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions of the default command of an older version."""
    with tempfile.TemporaryDirectory() as out:
        run = Path(out) / "run"
        words = ["longtail.cli", "train", str(given.folder), "--out", str(run), "--seed", str(seed)]
        path = {"PYTHONPATH": str(given.before.resolve())}
        subprocess.run([sys.executable, "-m", *words], check=True, env={**os.environ, **path})
        logits = pq.read_table(run / "predictions.parquet")["logits"]
        return np.array(logits.to_pylist()).argmax(1), {}


def fitted(name: str, data: Embeddings, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions of an estimator, with C chosen on part of the training split."""
    estimator, grid = estimators(seed)[name]
    x, y = data.split("train")
    best: dict[str, float] = {}
    if grid:
        split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=seed)
        search = GridSearchCV(estimator, grid, scoring="balanced_accuracy", cv=split, refit=False)
        best = search.fit(x, y).best_params_
    model = clone(estimator).set_params(**best).fit(x, y)
    return model.predict(data.split("test")[0]), {"C": next(iter(best.values()), None)}


def scores(right: np.ndarray, default: np.ndarray | None, data: Embeddings) -> dict[str, Any]:
    """Percent right, over all and by class, with intervals.

    Args:
        right: (seeds, test images), whether each prediction is right.
        default: the same of the default command; None: without `behind`.
        data: the features, for their labels.
    """
    truth, train_labels = data.split("test")[1], data.split("train")[1]
    random = np.random.default_rng(0)
    classes = np.unique(truth)
    few = ClassPrior.from_labels(train_labels).groups()["few"].numpy()
    rare = np.isin(classes, few)
    shares = np.array([(truth == label).mean() for label in classes])
    recalls, draws, leads = [], [], []  # by class: by seed, resampled, and the default's lead
    for label in classes:
        own = right[:, truth == label].astype(float)
        count = own.shape[1]
        drawn = random.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        recalls.append(own.mean(1))
        draws.append(drawn @ own.mean(0))
        if default is not None:
            lead = default[:, truth == label].mean(0) - own.mean(0)
            leads.append([lead.mean(), *drawn @ lead])
    recall, resampled = np.array(recalls), np.array(draws)
    metrics = {"accuracy": shares, "balanced": np.full(len(classes), 1 / len(classes))}
    if rare.any():
        metrics["few"] = rare / rare.sum()
    worst = recall.mean(1).argmin()
    metrics["worst"] = np.arange(len(classes)) == worst
    found: dict[str, Any] = {}
    for name, weights in metrics.items():
        by_seed = weights @ recall
        found[name] = [_percent(by_seed.mean()), *_interval(weights @ resampled)]
        found[f"{name} by seed"] = [_percent(value) for value in by_seed]
        if default is not None and name != "worst":
            lead, *others = weights @ np.array(leads)
            found[f"{name} behind"] = [_percent(lead), *_interval(np.array(others))]
    return found


def _percent(share: float) -> float:
    return round(100 * float(share), 1)


def _interval(values: np.ndarray) -> list[float]:
    return [_percent(value) for value in np.quantile(values, (0.025, 0.975))]


def keep(path: Path, row: dict[str, Any]) -> None:
    """Replaces the older row."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = [old for old in rows if (old["data"], old["row"]) != (row["data"], row["row"])]
    write_json(
        path,
        {
            "command": "python bench/pictures.py NAME --folder FOLDER",
            "environment": environment(),
            "scikit-learn": importlib.metadata.version("scikit-learn"),
            "imbalanced-learn": importlib.metadata.version("imbalanced-learn"),
            "rows": [*rows, row],
        },
    )


def between(values: list[float] | None) -> str:
    """A value with its interval."""
    return "{} ({} to {})".format(*values) if values else "n/a"


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = [
        "| data | | all | balanced (95 %) | few | worst class | behind, balanced (95 %) "
        "| deviation over seeds | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        balanced, behind = (between(row.get(name)) for name in ("balanced", "balanced behind"))
        few = row["few"][0] if "few" in row else "n/a"
        by_seed = row["balanced by seed"]
        deviation = round(float(np.std(by_seed, ddof=1)), 1) if len(by_seed) > 1 else "n/a"
        if row["row"] == DEFAULT:
            behind = "n/a"
        cells = [row["data"], row["row"], row["accuracy"][0], balanced, few, row["worst"][0]]
        lines.append(f"| {' | '.join(map(str, [*cells, behind, deviation, row['seconds']]))} |")
    return lines


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    main()
