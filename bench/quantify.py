"""Class priors on real tables: our estimators compared with quapy's.

    pip install quapy==0.2.3
    python bench/quantify.py --data DIR [--out results/quantify.json] [--page docs/shift.md]
    python bench/quantify.py --page docs/shift.md    # only writes the tables of the result file

DIR contains the tables as NAME.csv.gz, last column `label`, empty cells are missing. Classes with
fewer than 25 rows are left out. Each table is split at random, class by class: 40 % train the
classifier (logistic regression, naive Bayes, random forest), 24 % are the labelled source, and
targets are drawn without replacement from the remaining 36 %: a prior from Dirichlet(3, ..., 3),
then the class of each row; priors for which there are not enough rows are drawn again. Every
estimator sees the same probabilities of the same rows. Errors are those of the estimate before any
test, compared with the drawn prior: MAE in percentage points, RAE as a ratio. Seconds are on one
core per target, without preparation for quapy's estimators, with it for ours.

`em, no shrinkage` is maximum likelihood under our calibration (`strength=0`). `separated` is
synthetic and easy: ten Gaussian classes that all classifiers tell apart, with imbalance 20.
`beside_no_shrinkage` compares the default with the better of `em, no shrinkage` and EMQ-BCTS for
each table and classifier: the mean difference over targets and its standard error over splits. The
better one is chosen on the same targets, which favours it.

The constants of `longtail.shift` were chosen on simulated Gaussians. The designs were compared
inside the training splits of other random splits of these tables.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longtail.files import write_json
from longtail.shift import absolute_error, estimate_prior, relative_absolute_error
from longtail.training.run import environment
from pages import write_between

Array = NDArray[Any]
TABLES = ("separated", "glass", "ecoli", "car", "anneal", "wine-white", "page-blocks", "optdigits")
SIZES = (60, 250, 1000)
FEWEST, DRAWS, TRIES, FLOOR = 25, 3, 300, 14.0
OURS = ("em", "em, no shrinkage", "kdey")
WITHOUT = ("em, no shrinkage", "EMQ-BCTS")
PEERS = ("EMQ", "EMQ-BCTS", "KDEy-ML")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--repeats", type=int, default=4)
    options.add_argument("--out", type=Path, default=Path("results/quantify.json"))
    options.add_argument("--page", type=Path)
    given = options.parse_args()
    if given.data:
        torch.set_num_threads(1)
        result: dict[str, Any] = {
            "command": f"python bench/quantify.py --data DIR --repeats {given.repeats}",
            # Without the command line, which names folders.
            "environment": {k: v for k, v in environment().items() if k != "command"},
            "rows": [],
            "beside_no_shrinkage": [],
        }
        for name in TABLES:
            features, labels = separated() if name == "separated" else load(given.data, name)
            found = table(features, labels, given.repeats)
            about = {"table": name, "classes": int(labels.max()) + 1}
            result["rows"] += [about | row for row in means(found)]
            result["beside_no_shrinkage"] += [
                {"table": name} | row for row in beside_no_shrinkage(found)
            ]
            write_json(given.out, result)
            print(name, flush=True)
    if given.page:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.page, "bench/quantify.py errors", error_lines(result["rows"]))
        write_between(
            given.page,
            "bench/quantify.py shrinkage",
            shrinkage_lines(result["beside_no_shrinkage"]),
        )


def load(folder: Path, name: str) -> tuple[Array, Array]:
    """Features, one-hot if they are words, and class indices."""
    frame = pd.read_csv(folder / f"{name}.csv.gz", dtype={"label": str})
    labels = frame.pop("label")
    frame = frame.loc[:, frame.nunique(dropna=False) > 1]
    numbers = frame.select_dtypes("number")
    words = frame.drop(columns=numbers.columns).fillna("missing").astype(str)
    parts = [numbers.fillna(numbers.median()).to_numpy(float)]
    if len(words.columns):
        parts.append(pd.get_dummies(words).to_numpy(float))
    kept = (labels.map(labels.value_counts()) >= FEWEST).to_numpy()
    return np.concatenate(parts, axis=1)[kept], np.unique(labels[kept], return_inverse=True)[1]


def separated(rows: int = 5000, classes: int = 10) -> tuple[Array, Array]:
    """Gaussian classes of unit variance, each at 5 on its own axis."""
    generator = np.random.default_rng(0)
    share = 20.0 ** -(np.arange(classes) / (classes - 1))
    labels = generator.choice(classes, rows, p=share / share.sum())
    return 5 * np.eye(classes)[labels] + generator.normal(size=(rows, classes)), labels


def classifiers() -> dict[str, Any]:
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "naive Bayes": make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-3)),
        "random forest": RandomForestClassifier(100, n_jobs=1, random_state=0),
    }


def split(
    labels: Array, generator: np.random.Generator, train: float = 0.4, source: float = 0.24
) -> list[Array]:
    """Indices of the shares `train` and `source` of each class, and of the rest."""
    parts: list[list[Array]] = [[], [], []]
    for c in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == c))
        ends = np.round([train * len(mine), (train + source) * len(mine)]).astype(int)
        for part, indices in zip(parts, np.split(mine, ends), strict=True):
            part.append(indices)
    return [np.concatenate(part) for part in parts]


def targets(
    pool: Array, size: int, generator: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Priors, and indices of rows drawn with them; none if there are not enough rows."""
    counts = np.bincount(pool)
    for _ in range(DRAWS):
        for _ in range(TRIES):
            prior = generator.dirichlet(np.full(len(counts), 3.0))
            wanted = generator.multinomial(size, prior)
            if (wanted <= counts).all():
                rows = [
                    generator.choice(np.flatnonzero(pool == c), count, replace=False)
                    for c, count in enumerate(wanted)
                ]
                yield prior, np.concatenate(rows)
                break


class Given(ClassifierMixin, BaseEstimator):
    """A classifier for quapy whose inputs are the probabilities themselves."""

    def fit(self, x: Array, _: Array) -> "Given":  # noqa: D102
        self.classes_ = np.arange(x.shape[1])
        return self

    def predict(self, x: Array) -> Array:  # noqa: D102
        return np.asarray(x.argmax(axis=1))

    def predict_proba(self, x: Array) -> Array:  # noqa: D102
        return x


def peer(name: str, prior: Array, source: Array, labels: Array) -> Callable[[Array], Array]:
    """One of quapy's estimators, fitted to the source's probabilities."""
    from quapy.method.aggregative import EMQ, KDEyML

    options: dict[str, Any] = {"classifier": Given().fit(source, labels), "fit_classifier": False}
    if name == "EMQ":
        return lambda target: np.asarray(EMQ.EM(prior, target)[0])
    kinds = {
        "EMQ-BCTS": lambda: EMQ.EMQ_BCTS(
            **options, val_split=(source, labels), on_calib_error="backup"
        ),
        "KDEy-ML": lambda: KDEyML(**options, val_split=(source, labels), random_state=0),
    }
    fitted = kinds[name]().fit(source, labels)
    return lambda target: np.asarray(fitted.predict(target))


# The errors of every target for each classifier, size, estimator and repeat.
Found = dict[tuple[str, int, str], dict[int, list[dict[str, float]]]]


def table(features: Array, labels: Array, repeats: int) -> Found:
    """Errors and seconds of every estimator on every target."""
    found: Found = defaultdict(lambda: defaultdict(list))
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        train, source, pool = split(labels, generator)
        drawn = {size: list(targets(labels[pool], size, generator)) for size in SIZES}
        prior = np.bincount(labels[train]) / len(train)
        for kind, model in classifiers().items():
            model.fit(features[train], labels[train])
            held, rest = (floored(model.predict_proba(features[rows])) for rows in (source, pool))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                estimators = {name: ours(name, prior, held, labels[source]) for name in OURS}
                estimators |= {name: peer(name, prior, held, labels[source]) for name in PEERS}
            for size, sets in drawn.items():
                for (truth, rows), (name, estimate) in product(sets, estimators.items()):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        began = time.process_time()
                        answer = estimate(rest[rows])
                        seconds = time.process_time() - began
                    answer = np.clip(answer, 0, None) / np.clip(answer, 0, None).sum()
                    found[kind, size, name][repeat].append(
                        {
                            "mae": 100 * absolute_error(truth, answer),
                            "rae": relative_absolute_error(truth, answer, size),
                            "seconds": seconds,
                        }
                    )
    return found


def ours(name: str, prior: Array, source: Array, labels: Array) -> Callable[[Array], Array]:
    """One of our estimators; with the interval, as users call it."""
    method, _, plain = name.partition(", ")
    strength = 0.0 if plain else None

    def estimate(target: Array) -> Array:
        found = estimate_prior(
            np.log(source),
            labels,
            np.log(target),
            prior,
            method,  # type: ignore[arg-type]
            strength=strength,
        )
        return found.estimated.numpy()

    return estimate


def means(found: Found) -> list[dict[str, Any]]:
    """Mean errors of each estimator, with the standard error of the MAE over targets."""
    rows = []
    for (kind, size, method), repeats in found.items():
        ones = [one for each in repeats.values() for one in each]
        mean = {key: round(float(np.mean([one[key] for one in ones])), 4) for key in ones[0]}
        spread = float(np.std([one["mae"] for one in ones]) / len(ones) ** 0.5)
        about = {"classifier": kind, "samples": size, "method": method, "targets": len(ones)}
        rows.append({**about, **mean, "mae_se": round(spread, 4)})
    return rows


def beside_no_shrinkage(found: Found) -> list[dict[str, Any]]:
    """By how much the default exceeds the better of WITHOUT, for each classifier."""
    rows = []
    for kind in dict.fromkeys(kind for kind, _, _ in found):
        by = {}  # errors by method and repeat, over all sizes
        for method in (OURS[0], *WITHOUT):
            repeats: dict[int, list[dict[str, float]]] = defaultdict(list)
            for (k, _, m), each in found.items():
                for repeat, ones in each.items():
                    if (k, m) == (kind, method):
                        repeats[repeat] += ones
            by[method] = repeats
        row: dict[str, Any] = {"classifier": kind}
        for key in ("mae", "rae"):
            value = {
                method: np.array([np.mean([one[key] for one in ones]) for ones in each.values()])
                for method, each in by.items()
            }
            better = min(WITHOUT, key=lambda method: value[method].mean())
            behind = value[OURS[0]] - value[better]
            error = float(behind.std(ddof=1)) / len(behind) ** 0.5 if len(behind) > 1 else np.nan
            row |= {f"{key}_better": better, key: round(float(value[OURS[0]].mean()), 4)}
            row |= {f"{key}_behind": round(float(behind.mean()), 4), f"{key}_se": round(error, 4)}
        rows.append(row)
    return rows


def floored(values: Array) -> Array:
    """Probabilities, with 0 replaced by one far below the largest, since it is not a certainty."""
    values = np.maximum(values, values.max(axis=1, keepdims=True) * np.exp(-FLOOR))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def error_lines(rows: list[dict[str, Any]]) -> list[str]:
    """MAE / RAE of each estimator, mean over target sizes."""
    methods = [*OURS, *(f"{p} (quapy)" for p in PEERS)]
    lines = [
        "| table | classifier | " + " | ".join(methods) + " |",
        "|---|---|" + "---|" * len(methods),
    ]
    for name, kind in dict.fromkeys((row["table"], row["classifier"]) for row in rows):
        cells = []
        for method in (*OURS, *PEERS):
            mine = [
                r
                for r in rows
                if (r["table"], r["classifier"], r["method"]) == (name, kind, method)
            ]
            mae, rae = (np.mean([row[key] for row in mine]) for key in ("mae", "rae"))
            cells.append(f"{mae:.2f} / {rae:.2f}")
        lines.append(f"| {name} | {kind} | " + " | ".join(cells) + " |")
    return lines


def shrinkage_lines(rows: list[dict[str, Any]]) -> list[str]:
    """How far the default is behind the better estimate without shrinkage; negative: ahead."""
    lines = ["| table | classifier | MAE | RAE |", "|---|---|---|---|"]
    for row in rows:
        cells = (f"{row[f'{key}_behind']:+.2f} ± {row[f'{key}_se']:.2f}" for key in ("mae", "rae"))
        lines.append(f"| {row['table']} | {row['classifier']} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
