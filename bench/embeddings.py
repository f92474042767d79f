"""Linear heads on pretrained features of CIFAR-100-LT (imbalance 100), ours and others.

    pip install imbalanced-learn
    python bench/embeddings.py [--methods NAME ...] [--out results/embeddings.json]
    python bench/embeddings.py --docs docs/sklearn.md    # only writes the table of the result file

Features are computed once, as by `longtail embed cifar100-lt --backbone efficientnet_lite0
--data.image_size 128 --precision bf16-mixed`. Every method gets the same treatment: C is the
best of three by balanced accuracy on a held-out fifth of the training set (`GridSearchCV`, one
split), then the whole training set is fitted once. The test set is balanced and used once. Rows
"default C" choose nothing. `--curve` gives balanced accuracy on the held-out fifth for many values
of C. With `--methods` the other rows of the result file are kept. Seconds are processor seconds of
one thread, without imports at the first call, since the machine is shared.
"""

import argparse
import importlib.metadata
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imblearn.ensemble import BalancedBaggingClassifier, BalancedRandomForestClassifier
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from longtail.data import DataConfig
from longtail.files import write_json
from longtail.metrics import Confusion
from longtail.prior import ClassPrior
from longtail.sklearn import LongTailClassifier, PriorAdjustedClassifier
from longtail.training.embed import Embeddings, embed_dataset
from longtail.training.run import environment
from pages import write_between

FEATURES = Path("runs/embeddings/cifar100-lt-128.parquet")
OURS = [2.0, 5.0, 12.0]  # on features of total variance 1; 12 is scikit-learn's 0.016 here
CURVE = [5.0, 10.0, 20.0, 50.0]
PLAIN, BALANCED = [0.01, 0.1, 1.0], [0.0003, 0.001, 0.003]
# scikit-learn's default while choosing C; more for the last fit, so that it converges.
FINAL_ITERATIONS = 300


@dataclass(frozen=True)
class Row:
    """A classifier, its candidate values of C, and the name of that parameter."""

    estimator: Any
    values: list[float]
    prefix: str = ""


def bagging(members: int) -> Row:
    head = LogisticRegression(max_iter=FINAL_ITERATIONS)
    bags = BalancedBaggingClassifier(head, n_estimators=members, random_state=0)
    return Row(bags, [0.003, 0.01, 0.03], "estimator__")


def rows() -> dict[str, Row]:
    return {
        "LongTailClassifier logit_adjust": Row(LongTailClassifier("logit_adjust"), OURS),
        "LongTailClassifier lade": Row(LongTailClassifier("lade"), OURS),
        "LongTailClassifier gml": Row(LongTailClassifier("gml", random_state=0), OURS),
        "LongTailClassifier ce": Row(LongTailClassifier("ce"), OURS),
        "LongTailClassifier logit_adjust, default C": Row(LongTailClassifier(), []),
        "LongTailClassifier gml, default C": Row(LongTailClassifier("gml", random_state=0), []),
        "BalancedBagging, 10 LogisticRegression": bagging(10),
        "BalancedBagging, 50 LogisticRegression": bagging(50),
        "BalancedRandomForest, 100 trees": Row(BalancedRandomForestClassifier(random_state=0), []),
        "LogisticRegression balanced": Row(LogisticRegression(class_weight="balanced"), BALANCED),
        "LogisticRegression": Row(LogisticRegression(), PLAIN),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--curve", action="store_true")
    options.add_argument("--methods", nargs="+", default=list(rows()), choices=list(rows()))
    options.add_argument("--out", type=Path, default=Path("results/embeddings.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        lines = table(json.loads(given.out.read_text(encoding="utf-8")))
        write_between(given.docs, "bench/embeddings.py", lines)
        return
    # One thread, since two that wait for each other on a shared machine are slower than one.
    torch.set_num_threads(1)
    data = features()
    if given.curve:
        for method in ("logit_adjust", "gml"):
            result = json.loads(given.out.read_text(encoding="utf-8"))
            result.setdefault("curve", {"C": CURVE})[method] = curve(method, data)
            write_json(given.out, result)
        return
    for name in given.methods:
        for found in measure(name, rows()[name], data):
            keep(given.out, found, data)
            print(json.dumps(found), flush=True)


def features() -> Embeddings:
    if not FEATURES.is_file():
        config = DataConfig("cifar100-lt", image_size=128)
        embed_dataset(config, "efficientnet_lite0", "bf16-mixed").write(FEATURES)
    return Embeddings.read(FEATURES)


def curve(method: str, data: Embeddings) -> list[float]:
    """Balanced accuracy on the held-out fifth of the training set for each C of `CURVE`."""
    split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
    search = GridSearchCV(
        LongTailClassifier(method, random_state=0),
        {"C": CURVE},
        scoring="balanced_accuracy",
        cv=split,
        refit=False,
    )
    search.fit(*data.split("train"))
    return [round(float(score), 4) for score in search.cv_results_["mean_test_score"]]


def measure(name: str, row: Row, data: Embeddings) -> list[dict[str, Any]]:
    """Chooses C, fits, evaluates on the test set; `ce` and plain also with the prior adjusted."""
    x, y = data.split("train")
    test, truth = data.split("test")
    clone(row.estimator).fit(*tiny())  # imports what a first fit imports
    began = time.process_time()
    best = {}
    if row.values:
        split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
        grid = {f"{row.prefix}C": row.values}
        search = GridSearchCV(
            row.estimator, grid, scoring="balanced_accuracy", cv=split, refit=False
        )
        best = search.fit(x, y).best_params_
    chosen = time.process_time()
    model = clone(row.estimator).set_params(**best)
    if isinstance(model, LogisticRegression):
        model.set_params(max_iter=FINAL_ITERATIONS)
    model.fit(x, y)
    fitted = time.process_time()
    scores = evaluate(model.predict(test), truth, y)
    done = time.process_time()
    seconds = {
        "choose_seconds": round(chosen - began, 1),
        "fit_seconds": round(fitted - chosen, 2),
        "predict_seconds": round(done - fitted, 2),
    }
    settings = {"method": name, "C": next(iter(best.values()), None)}
    found = [settings | scores | seconds]
    if name in ("LogisticRegression", "LongTailClassifier ce"):
        prior = None if "LongTail" in name else ClassPrior.from_labels(y).probabilities
        adjusted = PriorAdjustedClassifier(FrozenEstimator(model), "uniform", expressed_prior=prior)
        scores = evaluate(adjusted.fit(x, y).predict(test), truth, y)
        settings["method"] = f"PriorAdjusted {name}"
        found.append(settings | scores | seconds)
    return found


def tiny() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return x, np.arange(40) % 2


def evaluate(predicted: Any, truth: Any, train: Any) -> dict[str, float]:
    """Accuracy in percent, of all classes and of each group."""
    matrix = Confusion.from_labels(torch.tensor(truth), torch.tensor(predicted), 100)
    groups = ClassPrior.from_labels(train).groups()
    wanted = {"accuracy": None, **groups}
    return {name: round(100 * matrix.accuracy(group), 2) for name, group in wanted.items()}


def keep(path: Path, row: dict[str, Any], data: Embeddings) -> None:
    """Replaces the older row of a method, in the order of the methods."""
    result: dict[str, Any] = {"rows": []}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    others = [old for old in result["rows"] if old["method"] != row["method"]]
    order = [name for base in rows() for name in (base, f"PriorAdjusted {base}")]
    result |= {
        "command": "python bench/embeddings.py",
        "environment": environment(),
        "imbalanced-learn": importlib.metadata.version("imbalanced-learn"),
        "scikit-learn": importlib.metadata.version("scikit-learn"),
        "features": f"{data.name}, imbalance 100, {data.backbone} at 128 pixels, bf16",
        "rows": sorted([*others, row], key=lambda item: order.index(item["method"])),
    }
    write_json(path, result)


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = [
        f"Features of {result['features']}; percent; seconds of one processor thread; "
        f"longtail {result['environment']['packages']['longtail']}.",
        "",
        "| classifier | C | accuracy | many | medium | few | fit, s | choosing C, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [f"{row[name]:.1f}" for name in ("accuracy", "many", "medium", "few")]
        cells = [row["method"], "-" if row["C"] is None else f"{row['C']:g}", *cells]
        cells += [f"{row['fit_seconds']:.1f}", f"{row['choose_seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    main()
