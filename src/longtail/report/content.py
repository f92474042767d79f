"""Content of the page: every table, figure and sentence that the template lays out."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from markupsafe import Markup

from longtail.metrics import Confusion, accuracy_intervals, wilson_interval
from longtail.prior import FEW, MANY, ClassPrior
from longtail.report import svg
from longtail.report.class_pictures import (
    NAMED_ROWS,
    by_count,
    counts_picture,
    recall_of,
    recall_picture,
)
from longtail.report.comparison import FEWEST, Comparison, images_per_group
from longtail.report.confusion_picture import (
    BLOCKS,
    WHOLE,
    confused_pairs,
    confusion_picture,
    numbered,
    shade_legend,
)
from longtail.report.curve_pictures import calibration_pictures, history_pictures
from longtail.report.photographs import Thumbnails, photographs
from longtail.report.run import RunData
from longtail.report.sentences import Case, sentences
from longtail.report.tables import KEY_COLUMNS, MISSING, MORE_COLUMNS, Column, macro_f1_classes

MOST_ROWS, ENDS = 200, 30  # with more classes than that, only both ends are listed
PAIRS = 12
RECALL = Column("recall", "recall")
COLUMNS = (*KEY_COLUMNS, *MORE_COLUMNS)


def content(runs: Sequence[RunData], pictures: bool = True) -> dict[str, Any]:
    """The values of the template.

    Args:
        runs: what `shown_together` returns.
        pictures: whether to show photographs.
    """
    evaluated = any(run.scores for run in runs)
    comparison = Comparison.of(runs)
    thumbnails = Thumbnails(pictures)
    return {
        **common_content(runs, COLUMNS),
        "metrics": _metric_rows(runs, comparison),
        "lede": _lede(runs),
        "sentences": [
            (series, sentences(Case(runs, series, comparison)))
            for series, run in enumerate(runs)
            if run.scores
        ],
        "not_comparable": _not_comparable(runs, comparison),
        "fewest": FEWEST,
        "covered": macro_f1_classes([run.metrics for run in runs if run.scores]),
        "groups": _groups(runs),
        "counts": _counts(runs),
        "recall": recall_picture(runs) if evaluated else None,
        "group_means": any(len(run.class_names) > NAMED_ROWS for run in runs),
        "photographs": photographs(runs, thumbnails),
        "thumbnails": thumbnails,
        "confusions": _confusions(runs),
        "shades": shade_legend(),
        "block": _block(runs),
        "calibration": calibration_pictures(runs) if evaluated else None,
        "classes": _classes(runs) if evaluated else None,
    }


def common_content(runs: Sequence[RunData], columns: Sequence[Column]) -> dict[str, Any]:
    """Content that the pages of all tasks share: runs, metrics, training curves, settings."""
    environments = [
        {key: value for key, value in run.environment.items() if key != "command"} for run in runs
    ]
    return {
        "title": " · ".join(run.name for run in runs),
        "runs": [
            {"series": series, "name": run.name, "about": _about(run), "swatch": swatch(series)}
            for series, run in enumerate(runs)
        ],
        "columns": columns,
        "metrics": [[metric_cell(column, run, runs[0]) for column in columns] for run in runs],
        "history": history_pictures(runs),
        "settings": side_by_side([run.config for run in runs]),
        "environment": side_by_side(environments),
        "commands": [command_line(run.environment.get("command")) for run in runs],
    }


def _lede(runs: Sequence[RunData]) -> str:
    """What the runs were trained and evaluated on, in one or two sentences."""
    known = [(run.prior, run.name) for run in runs if run.prior]
    if not known:
        metrics = [run.saved_metrics for run in runs]  # empty before the end
        unsplit = all(saved and "split" not in saved for saved in metrics)
        why = "No test or val split to evaluate on" if unsplit else "No predictions yet"
        return f"{why}: only the training log and the settings are shown."
    prior, owner = known[0]
    counts = prior.counts.double()
    source = next((name for run in runs if (name := run.setting("data", "source"))), None)
    found = [
        (f"{source}: " if source else "")
        + f"{prior.num_classes:,} classes, {counts.sum():,g} training images"
        f" ({counts.max():,g} of the most frequent class, {counts.min():,g} of the rarest)."
    ]
    if any(other != prior for other, _ in known[1:]):
        found.append(f"Training counts differ between the runs; these are from {owner}.")
    tests = sorted({f"{len(run.scores.labels):,} {run.split}" for run in runs if run.scores})
    if tests:
        found.append(f"Evaluated on {' / '.join(tests)} images.")
    return " ".join(found)


def _about(run: RunData) -> str:
    """A short description of the run from its settings."""
    epochs, seed = run.setting("epochs"), run.setting("seed")
    words = [
        run.method,
        run.setting("backbone"),
        _teacher(run.setting("teacher")),
        _trained(run.setting("tune"), epochs),
        f"seed {seed}" if seed else None,
        f"expressed prior: {run.expressed}" if isinstance(run.expressed, str) else None,
    ]
    return ", ".join(word for word in words if word)


def _trained(tune: str | None, epochs: str | None) -> str | None:
    if tune == "head" and epochs == "0":
        return "head on fixed features"
    return f"{epochs} epoch{'' if epochs == '1' else 's'}" if epochs else None


def _teacher(setting: str | None) -> str | None:
    if setting in (None, "none"):
        return None
    return "teacher trained first" if setting == "train" else f"teacher {setting}"


def metric_cell(column: Column, run: RunData, first: RunData) -> dict[str, Any]:
    """A cell of the metrics: its text, and its difference from the first run."""
    value = run.metrics.get(column.key)
    different = run is not first
    return {
        "text": column.text(value),
        "difference": column.difference(value, first.metrics.get(column.key)) if different else "",
        "interval": "",
        "images": "",
        "grey": False,
        "best": False,
    }


def _metric_rows(runs: Sequence[RunData], comparison: Comparison) -> list[list[dict[str, Any]]]:
    """Cells with intervals and numbers of test images; a significantly best one is marked."""
    rows = []
    best = {column.key: comparison.best(column.key, runs, column.higher) for column in COLUMNS}
    for series, run in enumerate(runs):
        known = run.scores is not None and run.prior is not None
        intervals = accuracy_intervals(run.scores, run.prior) if run.scores and run.prior else {}
        images = images_per_group(run) if known else {}
        cells = []
        for column in COLUMNS:
            cell = metric_cell(column, run, runs[0])
            if not {0, series} <= set(comparison.members):
                cell["difference"] = ""
            if column.key in intervals and cell["text"] != MISSING:
                cell["interval"] = span(*intervals[column.key])
            if known and cell["text"] != MISSING:
                count = images.get(column.key, images["accuracy"])
                cell["images"] = f"{count:,}" if column.key in images else ""
                cell["grey"] = count < FEWEST
            cell["best"] = best[column.key] == series
            cells.append(cell)
        rows.append(cells)
    return rows


def span(low: float, high: float) -> str:
    """An interval in percent.

    Examples:
        >>> span(0.5, 0.6234)
        '50.0 to 62.3'
    """
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _not_comparable(runs: Sequence[RunData], comparison: Comparison) -> str:
    """Names of evaluated runs that are not compared with the others."""
    return ", ".join(
        run.name
        for series, run in enumerate(runs)
        if run.scores and series not in comparison.members
    )


def _groups(runs: Sequence[RunData]) -> str:
    """Each group, its rule and its size."""
    prior = next((run.prior for run in runs if run.prior), None)
    rules = {"many": f"over {MANY}", "medium": f"{FEW} to {MANY}", "few": f"under {FEW}"}
    sizes = (
        {
            name: f", {len(found):,} class{'' if len(found) == 1 else 'es'}"
            for name, found in prior.groups().items()
        }
        if prior
        else {}
    )
    return "; ".join(f"{name} ({rule}{sizes.get(name, '')})" for name, rule in rules.items())


def _counts(runs: Sequence[RunData]) -> list[tuple[str, Markup]]:
    """A figure per distinct class prior, and the runs that were trained on it."""
    priors: dict[ClassPrior, list[RunData]] = {}
    for run in runs:
        if run.prior:
            priors.setdefault(run.prior, []).append(run)
    return [
        (
            ", ".join(run.name for run in found) if len(priors) > 1 else "",
            counts_picture(prior, found[0].class_names),
        )
        for prior, found in priors.items()
    ]


def _confusions(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    return [
        {
            "series": series,
            "picture": confusion_picture(run.scores, run.prior, run.class_names),
            "pairs": confused_pairs(run.scores, run.class_names, PAIRS),
            "key": (
                [run.class_names[c] for c in by_count(run.prior).tolist()]
                if numbered(run.class_names)
                else []
            ),
        }
        for series, run in enumerate(runs)
        if run.scores and run.prior
    ]


def _block(runs: Sequence[RunData]) -> str:
    """How many classes a cell of the confusion matrix groups; empty if it is one."""
    sizes = [run.prior.num_classes for run in runs if run.prior]
    return f"{sizes[0] / BLOCKS:.3g}" if sizes and sizes[0] > WHOLE else ""


def _classes(runs: Sequence[RunData]) -> dict[str, Any]:
    """One row per class, most frequent first; of very many, those with extreme recall."""
    first = next(run for run in runs if run.scores)
    prior, scores = first.prior, first.scores
    assert prior is not None
    assert scores is not None
    group_of = {c: name for name, found in prior.groups().items() for c in found.tolist()}
    tests = torch.bincount(scores.labels, minlength=prior.num_classes)
    counts = [Confusion.from_scores(run.scores) if run.scores else None for run in runs]

    def row(index: int) -> dict[str, Any]:
        return {
            "name": first.class_names[index],
            "group": group_of[index],
            "count": f"{prior.counts[index]:,g}",
            "tests": f"{tests[index]:,}",
            "cells": [_class_cells(found, index) for found in counts],
        }

    order = by_count(prior)
    if len(order) <= MOST_ROWS:
        return {"parts": [("", [row(c) for c in order.tolist()])], "left_out": 0}
    mean = torch.stack([recall_of(run) for run in runs if run.scores]).nanmean(dim=0)
    found = order[~mean[order].isnan()]
    ranked = found[mean[found].argsort(stable=True)].tolist()
    ends = min(ENDS, len(ranked) // 2)
    parts = [
        (f"The {ends} with the lowest recall", [row(c) for c in ranked[:ends]]),
        (f"The {ends} with the highest recall", [row(c) for c in reversed(ranked[-ends:])]),
    ]
    return {"parts": parts, "left_out": len(order) - 2 * ends}


def _class_cells(confusion: Confusion | None, index: int) -> list[dict[str, Any]]:
    """Recall and precision of a class in a run, each with its interval and number of images."""
    cells = []
    for name in ("recall", "precision"):
        hits, count = 0, 0
        if confusion is not None:
            whole = confusion.support if name == "recall" else confusion.predicted
            hits, count = int(confusion.hits[index]), int(whole[index])
        cell = level_cells(RECALL, [hits / count if count else None])[0]
        interval = wilson_interval(torch.tensor(hits), torch.tensor(count))
        cells.append(
            {
                **cell,
                "interval": span(*map(float, interval)) if count else "",
                "images": f"{count:,}" if name == "precision" and count else "",
                "grey": count < FEWEST,
            }
        )
    return cells


def level_cells(column: Column, values: Sequence[float | None]) -> list[dict[str, Any]]:
    """One cell per run: the metric's text and the length of its bar."""
    return [{"text": column.text(value), "share": _share(value)} for value in values]


def _share(value: float | None) -> str:
    """Length of the bar under a metric."""
    return "0" if value is None or math.isnan(value) else f"{value:.2f}"


def side_by_side(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nested settings as dotted names, with those that differ between the runs apart."""
    flat = [_flat(values) for values in settings]
    names = list(dict.fromkeys(name for values in flat for name in values))
    rows = [(name, [values.get(name, MISSING) for values in flat]) for name in names]
    return {
        "different": [(name, texts) for name, texts in rows if len(set(texts)) > 1],
        "same": [(name, texts[0]) for name, texts in rows if len(set(texts)) == 1],
    }


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[str(name)] = _value(value)
    return flat


def _value(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_value(inner) for inner in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def command_line(command: Any) -> str:
    """The command as it would be typed."""
    if isinstance(command, list | tuple):
        return shlex.join(str(word) for word in command)
    return str(command) if command else MISSING


def swatch(series: int) -> Markup:
    """The mark of a run, for legends."""
    parts = [
        svg.path("M0 7h26", f"curve r{series}"),
        svg.path(svg.marker(series, 13, 7, 4), f"mark r{series}"),
    ]
    return svg.element("svg", *parts, class_="swatch", viewBox="0 0 26 14", aria_hidden="true")
