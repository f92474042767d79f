"""How often the intervals of an estimated class prior contain it, on tables and their classifiers.

    python bench/coverage.py --data DIR [--splits 30] [--out results/coverage.json]
    python bench/coverage.py --spread                # only the part `spread`, which needs no table
    python bench/coverage.py --page docs/shift.md    # only writes the tables of the result file

DIR contains the tables as for bench/quantify.py, whose classifiers and preparation are used; only
those with ten or more labelled source rows per class are used. `growth` is synthetic: 5,000 animals
of 12 ages, to be predicted from seven measures of size that say little about old ages, as in the
abalone table.

Each table is split at random, class by class: 40 % train the classifier, 24 % are the labelled
source, and targets of 60, 250 and 1,000 rows are drawn without replacement from the remaining 36 %;
for targets of 2,000 rows it is 20, 20 and 60 %. The prior of a target is drawn from
Dirichlet(3, ..., 3), limited to the available rows of each class (`moved_l1` is the mean distance
to the training prior), then the number of rows of each class from the multinomial distribution.
Coverage is that of the prior, not of the rows' own shares; its standard error is over splits. A
target counts as reliable by `found.reliable`.

`spread`: the same for targets of 60 rows of `growth`, naive Bayes, and class priors that vary more:
from Dirichlet(a, ..., a) for several a.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtail.files import write_json
from longtail.shift import estimate_prior
from longtail.training.run import environment
from pages import write_between
from quantify import Array, classifiers, floored, load, split

TABLES = ("car", "anneal", "wine-white", "growth", "optdigits")
# Shares of training and source rows, and the sizes of the targets from the rest.
PARTS = {(0.4, 0.24): (60, 250, 1000), (0.2, 0.2): (2000,)}
SIZES = tuple(size for sizes in PARTS.values() for size in sizes)
DRAWS = 3
ALPHAS = (0.5, 1.0, 3.0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--splits", type=int, default=30)
    options.add_argument("--out", type=Path, default=Path("results/coverage.json"))
    options.add_argument("--spread", action="store_true")
    options.add_argument("--page", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    # Without the command line, which names folders.
    where = {k: v for k, v in environment().items() if k != "command"}
    if given.data:
        command = f"python bench/coverage.py --data DIR --splits {given.splits}"
        result: dict[str, Any] = {"command": command, "environment": where, "rows": []}
        for name in TABLES:
            features, labels = growth() if name == "growth" else load(given.data, name)
            rows = table(features, labels, given.splits)
            result["rows"] += [{"table": name, "classes": int(labels.max()) + 1} | r for r in rows]
            write_json(given.out, result)
            print(name, flush=True)
    if given.data or given.spread:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        command = f"python bench/coverage.py --spread --splits {given.splits}"
        found = {"command": command, "environment": where, "rows": spread(given.splits)}
        write_json(given.out, result | {"spread": found})
    if given.page:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.page, "bench/coverage.py", lines(result["rows"]))
        spread_rows = result["spread"]["rows"]
        write_between(given.page, "bench/coverage.py spread", spread_lines(spread_rows))


def growth(animals: int = 5000, ages: int = 12) -> tuple[Array, Array]:
    """Seven measures of size of animals, and their age."""
    generator = np.random.default_rng(0)
    share = np.exp(-0.5 * ((np.arange(ages) - 5) / 2.9) ** 2)
    age = generator.choice(ages, animals, p=share / share.sum())
    size = 1 - np.exp(-0.25 * (age + 1)) + generator.normal(0, 0.08, animals)
    measures = generator.uniform(0.5, 2, 7) * size[:, None]
    return measures + generator.normal(0, 0.04, (animals, 7)), age


def table(features: Array, labels: Array, splits: int) -> list[dict[str, Any]]:
    """Coverage of each classifier and size of the target."""
    found: dict[tuple[str, int], list[list[dict[str, float]]]] = defaultdict(list)
    for seed in range(splits):
        generator = np.random.default_rng(seed)
        for (train_share, source_share), sizes in PARTS.items():
            train, source, pool = split(labels, generator, train_share, source_share)
            drawn = {
                size: [target(labels[pool], size, generator) for _ in range(DRAWS)]
                for size in sizes
                if most(np.bincount(labels[pool]), size).sum() > 1
            }
            for kind, model in classifiers().items():
                about = fitted(model, features, labels, train, source, pool)
                for size, sets in drawn.items():
                    found[kind, size].append([one(*about, rows, q) for q, rows in sets])
    return [
        {"classifier": kind, "samples": size, **summary(clusters)}
        for (kind, size), clusters in sorted(found.items())
    ]


def spread(splits: int) -> list[dict[str, Any]]:
    """Coverage for class priors that vary little or much, and rows that say little about them."""
    features, labels = growth()
    found: dict[float, list[list[dict[str, float]]]] = defaultdict(list)
    for seed in range(splits):
        generator = np.random.default_rng(seed)
        parts = split(labels, generator)
        about = fitted(classifiers()["naive Bayes"], features, labels, *parts)
        for alpha in ALPHAS:
            sets = [target(labels[parts[2]], SIZES[0], generator, alpha) for _ in range(DRAWS)]
            found[alpha].append([one(*about, rows, q) for q, rows in sets])
    return [{"alpha": alpha, **summary(clusters)} for alpha, clusters in found.items()]


def fitted(
    model: Any, features: Array, labels: Array, train: Array, source: Array, pool: Array
) -> tuple[Array, Array, Array, Array]:
    """Training prior, logits and labels of the source, and logits of the pool."""
    model.fit(features[train], labels[train])
    held, rest = (np.log(floored(model.predict_proba(features[rows]))) for rows in (source, pool))
    return np.bincount(labels[train]) / len(train), held, labels[source], rest


def target(
    pool: Array, size: int, generator: np.random.Generator, alpha: float = 3.0
) -> tuple[Array, Array]:
    """Draws a prior, and indices of rows with it, without replacement."""
    counts = np.bincount(pool)
    prior = suffices(generator.dirichlet(np.full(len(counts), alpha)), counts, size)
    while True:
        wanted = generator.multinomial(size, prior)
        if (wanted <= counts).all():
            rows = [
                generator.choice(np.flatnonzero(pool == c), count, replace=False)
                for c, count in enumerate(wanted)
            ]
            return prior, np.concatenate(rows)


def suffices(prior: Array, counts: Array, size: int) -> Array:
    """The prior with each class limited to its available rows; the others share the rest.

    Args:
        prior: (num_classes,).
        counts: (num_classes,), rows of each class; `most` of them sums to more than 1.
        size: rows to be drawn.
    """
    limit = most(counts, size)
    for _ in range(len(prior)):
        full = prior >= limit
        if not full.any():
            break
        prior = np.where(full, limit, prior)
        prior[~full] *= (1 - limit[full].sum()) / prior[~full].sum()
    return np.asarray(prior)


def most(counts: Array, size: int) -> Array:
    """The largest share of each class of which `size` rows are drawn, (num_classes,).

    With room for three standard deviations of a count, so that nearly every draw is accepted and
    accepted draws are multinomial: the p with size * p + 3 sqrt(size * p) = counts.
    """
    return np.asarray((np.sqrt(9 / size + 4 * counts / size) - np.sqrt(9 / size)) ** 2 / 4)


def one(
    prior: Array, held: Array, labels: Array, pool: Array, rows: Array, truth: Array
) -> dict[str, float]:
    """The default estimate for one target."""
    found = estimate_prior(held, labels, pool[rows], prior)
    low, high = found.interval.numpy().T
    assert found.region is not None
    return {
        "held": float(np.mean((low <= truth) & (truth <= high))),
        "region": float(found.region.contains(truth)),
        "width": float(np.mean(high - low)),
        "reliable": float(found.reliable),
        "moved": float(np.abs(prior - truth).sum()),
    }


def summary(clusters: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Percentages over the targets of each split, and over those reported as reliable."""
    every = [one for cluster in clusters for one in cluster]
    sure = [one for one in every if one["reliable"]]

    def percent(ones: list[dict[str, float]], key: str) -> float | None:
        return round(100 * float(np.mean([one[key] for one in ones])), 1) if ones else None

    by_split = [np.mean([one["held"] for one in cluster]) for cluster in clusters]
    error = float(np.std(by_split, ddof=1)) / len(clusters) ** 0.5
    return {
        "targets": len(every),
        "coverage_percent": percent(every, "held"),
        "coverage_se": round(100 * error, 2),
        "region_percent": percent(every, "region"),
        "reliable_percent": percent(every, "reliable"),
        "coverage_if_reliable_percent": percent(sure, "held"),
        "mean_width": round(float(np.mean([one["width"] for one in every])), 4),
        "moved_l1": round(float(np.mean([one["moved"] for one in every])), 3),
    }


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Coverage of the intervals / the region, and the share of reliable targets."""
    result = [
        "| table | classifier | " + " | ".join(f"{size} rows" for size in SIZES) + " | reliable |",
        "|---|---|" + "---|" * (len(SIZES) + 1),
    ]
    for name, kind in dict.fromkeys((row["table"], row["classifier"]) for row in rows):
        mine = {r["samples"]: r for r in rows if (r["table"], r["classifier"]) == (name, kind)}
        cells = [
            f"{mine[s]['coverage_percent']:.0f} ± {mine[s]['coverage_se']:.0f} / "
            f"{mine[s]['region_percent']:.0f}"
            if s in mine
            else ""
            for s in SIZES
        ]
        share = np.mean([row["reliable_percent"] for row in mine.values()])
        result.append(f"| {name} | {kind} | " + " | ".join(cells) + f" | {share:.0f} % |")
    return result


def spread_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Coverage and width of the intervals for each spread of the priors."""
    return [
        "| priors from | " + " | ".join(f"Dirichlet({row['alpha']:g})" for row in rows) + " |",
        "|---|" + "---|" * len(rows),
        "| coverage, % | "
        + " | ".join(f"{r['coverage_percent']:.1f} ± {r['coverage_se']:.1f}" for r in rows)
        + " |",
        "| mean width | " + " | ".join(f"{row['mean_width']:.2f}" for row in rows) + " |",
    ]


if __name__ == "__main__":
    main()
