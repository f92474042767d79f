"""Class priors on real tables: our estimators beside quapy's, and how often the intervals hold.

    pip install quapy==0.2.3
    python bench/quantify.py --data DIR [--out results/quantify.json] [--page docs/shift.md]
    python bench/quantify.py --page docs/shift.md    # only writes the tables of the result file

DIR holds the tables as NAME.csv.gz, last column `label`, empty cells are missing. Classes with
fewer than 25 rows are left out. Each table is split at random, class by class: 40 % train the
classifier (logistic regression, naive Bayes, random forest), 24 % are the labelled source, and
targets are drawn without replacement from the remaining 36 %: a prior from Dirichlet(3, ..., 3),
then the class of each row; priors that the rows do not suffice for are drawn again. Every
estimator sees the same probabilities of the same rows. Errors are of the estimate before any test,
against the prior that was drawn: MAE in percentage points. Seconds are of one core per target,
after preparation for quapy's, with it for ours.

The constants of `longtail.shift` were chosen on simulated Gaussians. The designs were compared
inside the training splits of other random splits of these tables.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
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
TABLES = ("glass", "ecoli", "car", "anneal", "wine-white", "page-blocks", "optdigits")
SIZES = (60, 250, 1000)
FEWEST, DRAWS, TRIES, FLOOR = 25, 3, 300, 14.0
OURS = ("em", "kdey")
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
        }
        for name in TABLES:
            result["rows"] += table(given.data, name, given.repeats)
            write_json(given.out, result)
    if given.page:
        rows = json.loads(given.out.read_text(encoding="utf-8"))["rows"]
        write_between(given.page, "bench/quantify.py errors", error_lines(rows))
        write_between(given.page, "bench/quantify.py coverage", coverage_lines(rows))


def load(folder: Path, name: str) -> tuple[Array, Array]:
    """Features, one-hot where they are words, and class indices."""
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


def classifiers() -> dict[str, Any]:
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "naive Bayes": make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-3)),
        "random forest": RandomForestClassifier(100, n_jobs=1, random_state=0),
    }


def split(labels: Array, generator: np.random.Generator) -> list[Array]:
    """Indices of 40, 24 and 36 % of each class."""
    parts: list[list[Array]] = [[], [], []]
    for c in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == c))
        ends = np.round([0.4 * len(mine), 0.64 * len(mine)]).astype(int)
        for part, indices in zip(parts, np.split(mine, ends), strict=True):
            part.append(indices)
    return [np.concatenate(part) for part in parts]


def targets(
    pool: Array, size: int, generator: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Priors, and indices of rows drawn with them; none where the rows do not suffice."""
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


def table(folder: Path, name: str, repeats: int) -> list[dict[str, object]]:
    """Mean errors, coverage and seconds of every estimator, for each classifier and target size."""
    features, labels = load(folder, name)
    found: dict[tuple[str, int, str], list[dict[str, float]]] = defaultdict(list)
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
                peers = {p: peer(p, prior, held, labels[source]) for p in PEERS}
            for size, sets in drawn.items():
                for truth, rows in sets:
                    for method in OURS:
                        one = ours(method, prior, held, labels[source], rest[rows], truth)
                        found[kind, size, method].append(one)
                    for method, estimate in peers.items():
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            began = time.process_time()
                            answer = estimate(rest[rows])
                            seconds = time.process_time() - began
                        answer = np.clip(answer, 0, None) / np.clip(answer, 0, None).sum()
                        one = errors(truth, answer, size) | {"seconds": seconds}
                        found[kind, size, method].append(one)
        print(f"{name} {repeat}", flush=True)
    rows = []
    for (kind, size, method), ones in found.items():
        means = {key: float(np.mean([one[key] for one in ones])) for key in ones[0]}
        spread = float(np.std([one["mae"] for one in ones]) / max(len(ones), 1) ** 0.5)
        about = {"table": name, "classes": len(prior), "classifier": kind, "samples": size}
        rounded = {key: round(value, 4) for key, value in means.items()}
        rows.append(
            {**about, "method": method, "targets": len(ones), **rounded, "mae_se": round(spread, 4)}
        )
    return rows


def errors(truth: Array, estimate: Array, size: int) -> dict[str, float]:
    return {
        "mae": 100 * absolute_error(truth, estimate),
        "rae": relative_absolute_error(truth, estimate, size),
    }


def ours(
    method: Any, prior: Array, held: Array, labels: Array, rest: Array, truth: Array
) -> dict[str, float]:
    began = time.process_time()
    found = estimate_prior(np.log(held), labels, np.log(rest), prior, method)
    seconds = time.process_time() - began
    low, high = found.interval.numpy().T
    assert found.region is not None
    return {
        **errors(truth, found.estimated.numpy(), len(rest)),
        "seconds": seconds,
        "coverage_percent": 100 * float(np.mean((low <= truth) & (truth <= high))),
        "region_percent": 100 * float(found.region.contains(truth)),
        "reliable_percent": 100 * float(found.reliable),
    }


def floored(values: Array) -> Array:
    """Probabilities, of which 0 counts as one far below the largest, not as a certainty."""
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


def coverage_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Coverage of intervals / region of the default, and how often they are called reliable."""
    lines = [
        "| table | classifier | " + " | ".join(f"{size} rows" for size in SIZES) + " | reliable |",
        "|---|---|" + "---|" * (len(SIZES) + 1),
    ]
    rows = [row for row in rows if row["method"] == OURS[0]]
    for name, kind in dict.fromkeys((row["table"], row["classifier"]) for row in rows):
        mine = {r["samples"]: r for r in rows if (r["table"], r["classifier"]) == (name, kind)}
        cells = [
            f"{mine[size]['coverage_percent']:.0f} / {mine[size]['region_percent']:.0f}"
            if size in mine
            else ""
            for size in SIZES
        ]
        share = np.mean([row["reliable_percent"] for row in mine.values()])
        word = {0.0: "no", 100.0: "yes"}.get(float(share), f"{share:.0f} %")
        lines.append(f"| {name} | {kind} | " + " | ".join(cells) + f" | {word} |")
    return lines


if __name__ == "__main__":
    main()
