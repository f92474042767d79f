"""Classifiers on unbalanced tables: ours and those of scikit-learn and imbalanced-learn.

    python bench/tables.py --data DIR [--repeats 2] [--out results/tables.json]
    python bench/tables.py --data DIR --choose-c        # how the default of C was chosen
    python bench/tables.py --docs docs/sklearn.md       # only writes the table of the result file

DIR contains NAME.csv.gz, last column `label`, empty cells missing: the tables of the UCI repository
that are listed in TABLES. Missing numbers become the median, categories become indicator columns;
columns are not scaled, except by a StandardScaler for LogisticRegression. `optdigits`, which is
balanced, is reduced to a long tail (imbalance 30). Every classifier has its default settings, and
random_state=0.

Comparison: stratified 3-fold cross-validation, repeated with other folds; mean and standard
deviation over all folds. Seconds are processor seconds of one thread for a fit. A fold that is
already in the result file is not run again.

Choice of C (`--choose-c`): on a stratified 60 % of each table, balanced accuracy in 5-fold
cross-validation for each C. The choice is the smallest C whose mean over tables is within one
standard error (over tables) of the best; embeddings need a small one. `chosen_without` leaves out
one table at a time, to show that no table decides.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from imblearn.ensemble import (
    BalancedBaggingClassifier,
    BalancedRandomForestClassifier,
    EasyEnsembleClassifier,
)
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from longtail.files import write_json
from longtail.prior import ClassPrior
from longtail.sklearn import (
    LongTailClassifier,
    PriorAdjustedClassifier,
    TunedPriorClassifierCV,
)
from longtail.training.run import environment
from pages import write_between

TABLES = ["glass", "ecoli", "page-blocks", "anneal", "car", "optdigits", "wine-white"]
METRICS = {"balanced_accuracy": 3, "macro_f1": 3, "log_loss": 2, "seconds": 2}
C_VALUES = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]


def forest() -> Any:
    return RandomForestClassifier(random_state=0)


def boosting() -> Any:
    return HistGradientBoostingClassifier(random_state=0)


def logistic(**settings: Any) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **settings))


def tuned(base: Any) -> Any:
    return TunedPriorClassifierCV(base, random_state=0)


# A classifier that also has an adjusted row is fitted once for both.
ADJUSTED = {
    "LogisticRegression": "PriorAdjusted LogisticRegression",
    "RandomForest": "PriorAdjusted RandomForest",
    "HistGradientBoosting": "PriorAdjusted HistGradientBoosting",
}
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": logistic,
    "LogisticRegression balanced": lambda: logistic(class_weight="balanced"),
    "RandomForest": forest,
    "HistGradientBoosting": boosting,
    "BalancedRandomForest": lambda: BalancedRandomForestClassifier(random_state=0),
    "BalancedBagging": lambda: BalancedBaggingClassifier(random_state=0),
    "EasyEnsemble": lambda: EasyEnsembleClassifier(random_state=0),
    "LongTailClassifier": LongTailClassifier,
    "LongTailClassifier gml": lambda: LongTailClassifier("gml", random_state=0),
    "TunedPrior LongTailClassifier": lambda: tuned(LongTailClassifier()),
    "TunedPrior RandomForest": lambda: tuned(forest()),
}
ORDER = [row for name in CLASSIFIERS for row in (name, ADJUSTED.get(name)) if row]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--choose-c", action="store_true")
    options.add_argument("--out", type=Path, default=Path("results/tables.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        lines = page(json.loads(given.out.read_text(encoding="utf-8")))
        write_between(given.docs, "bench/tables.py", lines)
        return
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    if given.out.is_file():
        result = json.loads(given.out.read_text(encoding="utf-8"))
    where = {name: value for name, value in environment().items() if name != "command"}
    command = f"python bench/tables.py --data DIR --repeats {given.repeats}"
    result |= {"command": command, "environment": where}
    if given.choose_c:
        result["choice_of_c"] = choose_c(given.data, given.tables)
        write_json(given.out, result)
        return
    result.setdefault("folds", [])
    done = {(f["table"], f["repeat"], f["fold"], f["classifier"]) for f in result["folds"]}
    for fold in folds(given.data, given.tables, given.repeats, done):
        result["folds"].append(fold)
        write_json(given.out, result)


def load(folder: Path, name: str) -> tuple[Any, Any]:
    """Features (samples, columns) and labels of a table."""
    table = pd.read_csv(folder / f"{name}.csv.gz")
    x, y = table.drop(columns="label"), table["label"].astype(str).to_numpy()
    x = x.dropna(axis=1, how="all")
    numbers = SimpleImputer(strategy="median")
    categories = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(sparse_output=False),
    )
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )
    x = columns.fit_transform(x)
    if name == "optdigits":
        rank = np.array([np.sum(y[:i] == y[i]) for i in range(len(y))])
        digit = y.astype(int)
        keep = rank < np.bincount(digit)[digit] * 30.0 ** (-digit / 9)
        x, y = x[keep], y[keep]
    return x, y


def folds(folder: Path, tables: list[str], repeats: int, done: set[Any]) -> Iterator[Any]:
    """Metrics of every classifier on every fold; all tables once before the next repeat."""
    for at in range(3 * repeats):
        for table in tables:
            x, y = load(folder, table)
            splitter = RepeatedStratifiedKFold(n_splits=3, n_repeats=repeats, random_state=0)
            train, test = list(splitter.split(x, y))[at]
            where = {"table": table, "repeat": at // 3, "fold": at % 3}
            for name, make in CLASSIFIERS.items():
                if (*where.values(), name) in done:
                    continue
                for row, found in measure(name, make(), x[train], y[train], x[test], y[test]):
                    yield where | {"classifier": row} | found
            print(where, flush=True)


def measure(name: str, model: Any, x: Any, y: Any, test: Any, truth: Any) -> Iterator[Any]:
    """Metrics of a classifier, then of the same one under the uniform prior if that is a row."""
    began = time.process_time()
    model.fit(x, y)
    seconds = time.process_time() - began
    yield name, metrics(model, test, truth) | {"seconds": round(seconds, 3)}
    if name in ADJUSTED:
        prior = ClassPrior.from_labels(np.unique(y, return_inverse=True)[1])
        adjusted = PriorAdjustedClassifier(
            FrozenEstimator(model), "uniform", expressed_prior=prior
        ).fit(x, y)
        yield ADJUSTED[name], metrics(adjusted, test, truth) | {"seconds": round(seconds, 3)}


def metrics(model: Any, test: Any, truth: Any) -> dict[str, float]:
    predicted, probability = model.predict(test), model.predict_proba(test)
    known = np.isin(truth, model.classes_)
    return {
        "balanced_accuracy": round(balanced_accuracy_score(truth, predicted), 4),
        "macro_f1": round(f1_score(truth, predicted, average="macro"), 4),
        "log_loss": round(
            log_loss(truth[known], probability[known].astype(float), labels=model.classes_), 4
        ),
    }


def choose_c(folder: Path, tables: list[str]) -> dict[str, Any]:
    """Balanced accuracy of each C on part of each table, and the choice with and without it."""
    scores = {}
    for table in tables:
        x, y = load(folder, table)
        # Classes with one sample in the part cannot be stratified again.
        part = train_test_split(np.arange(len(y)), train_size=0.6, stratify=y, random_state=0)[0]
        splitter = StratifiedKFold(5, shuffle=True, random_state=0)
        scores[table] = [
            cross_val_score(
                LongTailClassifier(C=c),
                x[part],
                y[part],
                cv=splitter,
                scoring="balanced_accuracy",
            ).mean()
            for c in C_VALUES
        ]
        print(table, np.round(scores[table], 3).tolist(), flush=True)
    lost = {table: np.array(row) - max(row) for table, row in scores.items()}
    others = {
        table: best_c([row for other, row in lost.items() if other != table]) for table in lost
    }
    return {
        "C": C_VALUES,
        "balanced_accuracy": {t: np.round(row, 4).tolist() for t, row in scores.items()},
        "chosen": best_c(list(lost.values())),
        "chosen_without": others,
    }


def best_c(lost: list[Any]) -> float:
    """The smallest C whose mean over tables is within one standard error of the best."""
    rows = np.array(lost)
    behind = rows - rows[:, [rows.mean(0).argmax()]]
    error = behind.std(axis=0, ddof=1) / len(rows) ** 0.5
    return C_VALUES[int(np.argmax(behind.mean(axis=0) >= -error))]


def page(result: dict[str, Any]) -> list[str]:
    """Markdown: mean and standard deviation over folds, averaged over tables; then per table."""
    found = pd.DataFrame(result["folds"])
    count = found.groupby("table")["classifier"].value_counts().min()
    names = [name for name in ORDER if name in set(found["classifier"])]
    mean = found.groupby(["classifier", "table"])[list(METRICS)].agg(["mean", "std"])
    lines = [
        f"Seven tables, {count} folds each: mean over folds, averaged over the tables, ± standard "
        "deviation over folds, averaged over the tables.",
        "",
        "| classifier | balanced accuracy | macro-F1 | log loss | fit, s |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        cells = []
        for metric, digits in METRICS.items():
            both = mean.loc[name][metric].mean()
            cells.append(f"{both['mean']:.{digits}f} ± {both['std']:.{digits}f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for metric, title in (("balanced_accuracy", "Balanced accuracy"), ("macro_f1", "Macro-F1")):
        lines += ["", f"{title} per table (percent):", "", f"| classifier | {' | '.join(TABLES)} |"]
        lines.append("|---" * (1 + len(TABLES)) + "|")
        for name in names:
            cells = [
                f"{100 * mean.loc[(name, t), (metric, 'mean')]:.1f} "
                f"± {100 * mean.loc[(name, t), (metric, 'std')]:.1f}"
                for t in TABLES
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
