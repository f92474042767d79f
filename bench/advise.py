"""How much worse the method recommended by `longtail advise` is than the best one in hindsight.

    python bench/advise.py --tables FOLDER [--names NAME ...] [--features FILE ...] [--out FILE]
    python bench/advise.py --docs docs/pictures.md    # only writes the table of the result file

For tables: the three folds of one stratified 3-fold split; the advice is based on two folds, and
all methods are fitted on these and compared on the third. For features from `longtail embed`: their
training and test split. The regret is the best balanced accuracy of a fold minus that of the
recommended method, in points; `always` is the regret of one method for every data set. The best of
eight methods on a handful of rare samples is partly luck, so the last row compares the mean over
folds with that of the one method that is best for the data set in hindsight.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from longtail.files import write_json
from longtail.pictures import advise
from longtail.pictures.compare import fit_candidate
from longtail.prior import ClassPrior
from longtail.training import Embeddings
from longtail.training.run import environment
from pages import write_between
from tables import load

IN_HINDSIGHT = "longtail advise, over the best method of the data set"
TABLES = ("glass", "ecoli", "car", "anneal", "optdigits", "wine-white", "page-blocks")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tables", type=Path)
    options.add_argument("--names", nargs="+", default=list(TABLES), choices=TABLES)
    options.add_argument("--features", nargs="+", type=Path, default=[])
    options.add_argument("--out", type=Path, default=Path("results/advise.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        found = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/advise.py", table(found))
        return
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    if given.out.is_file():
        rows = json.loads(given.out.read_text(encoding="utf-8"))["rows"]
    done = {(row["data"], row["fold"]) for row in rows}
    for name, fold, data in data_sets(given.tables, given.names, given.features):
        if (name, fold) in done:
            continue
        rows.append({"data": name, "fold": fold, **regret(data)})
        print(rows[-1], flush=True)
        write_json(given.out, {"environment": environment(), "rows": rows})


def data_sets(
    tables: Path | None, names: list[str], features: list[Path]
) -> Iterator[tuple[str, int, Embeddings]]:
    """Data sets with a training and a test split."""
    for path in features:
        yield path.stem, 0, Embeddings.read(path)
    for name in names if tables else []:
        assert tables
        x, labels = load(tables, name)
        classes, y = np.unique(labels, return_inverse=True)
        folds = StratifiedKFold(3, shuffle=True, random_state=0).split(x, y)
        for fold, (train, test) in enumerate(folds):
            order = np.concatenate([train, test])
            yield (
                name,
                fold,
                Embeddings(
                    features=x[order].astype(np.float32),
                    labels=y[order],
                    index=order,
                    splits=("train",) * len(train) + ("test",) * len(test),
                    paths=("",) * len(order),
                    class_names=tuple(map(str, classes)),
                    name=name,
                    backbone="none",
                ),
            )


def regret(data: Embeddings) -> dict[str, Any]:
    """The recommended method, and the balanced accuracy of each on the test split."""
    advice = advise(data)
    (x, y), (test, truth) = data.split("train"), data.split("test")
    prior = ClassPrior.from_labels(y, len(data.class_names))
    balanced = {}
    for row in advice.rows:
        features, labels = torch.from_numpy(x), torch.from_numpy(y)
        logits = fit_candidate(row.candidate, features, labels, prior, 0)(torch.from_numpy(test))
        right = logits.argmax(1).numpy() == truth
        recalls = [right[truth == label].mean() for label in np.unique(truth)]
        balanced[row.candidate.name] = round(100 * float(np.mean(recalls)), 2)
    chosen = advice.recommended.candidate.name
    lost = max(balanced.values()) - balanced[chosen]
    return {"recommended": chosen, "regret": round(lost, 2), "balanced_accuracy": balanced}


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines: the mean regret over the folds of each data set, and over the data sets."""
    methods = list(result["rows"][0]["balanced_accuracy"])
    regrets: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in result["rows"]:
        best = max(row["balanced_accuracy"].values())
        regrets[row["data"]]["longtail advise"].append(row["regret"])
        for method in methods:
            regrets[row["data"]][f"always {method}"].append(best - row["balanced_accuracy"][method])
    choices = ["longtail advise", *(f"always {method}" for method in methods)]
    for lost in regrets.values():
        least = min(np.mean(lost[f"always {method}"]) for method in methods)
        lost[IN_HINDSIGHT] = [max(0.0, float(np.mean(lost["longtail advise"]) - least))]
    choices += [IN_HINDSIGHT]
    means = {name: {c: float(np.mean(lost[c])) for c in choices} for name, lost in regrets.items()}
    means["mean"] = {c: float(np.mean([row[c] for row in means.values()])) for c in choices}
    lines = [f"| regret, points | {' | '.join(means)} |", f"|---|{'---|' * len(means)}"]
    for choice in choices:
        lines += [f"| {choice} | {' | '.join(f'{row[choice]:.1f}' for row in means.values())} |"]
    return lines


if __name__ == "__main__":
    main()
