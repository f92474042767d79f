"""What the page says: every table, picture and sentence that the template lays out."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from markupsafe import Markup

from longtail.prior import FEW, MANY, ClassPrior
from longtail.report import svg
from longtail.report.class_pictures import (
    NAMED_ROWS,
    by_count,
    counts_picture,
    recall_of,
    recall_picture,
)
from longtail.report.confusion_picture import (
    BLOCKS,
    WHOLE,
    confused_pairs,
    confusion_picture,
    shade_legend,
)
from longtail.report.curve_pictures import calibration_pictures, history_pictures
from longtail.report.run import RunData
from longtail.report.tables import KEY_COLUMNS, MISSING, MORE_COLUMNS, Column

MOST_ROWS, ENDS = 200, 30  # of more classes than that, only both ends are listed
PAIRS = 12
RECALL = Column("recall", "recall")


def content(runs: Sequence[RunData]) -> dict[str, Any]:
    """The values of the template."""
    judged = any(run.scores for run in runs)
    return {
        **common_content(runs, (*KEY_COLUMNS, *MORE_COLUMNS)),
        "lede": _lede(runs),
        "groups": _groups(runs),
        "counts": _counts(runs),
        "recall": recall_picture(runs) if judged else None,
        "group_means": any(len(run.class_names) > NAMED_ROWS for run in runs),
        "confusions": _confusions(runs),
        "shades": shade_legend(),
        "block": _block(runs),
        "calibration": calibration_pictures(runs) if judged else None,
        "classes": _classes(runs) if judged else None,
    }


def common_content(runs: Sequence[RunData], columns: Sequence[Column]) -> dict[str, Any]:
    """What the pages of all tasks have: runs, figures, curves of the training, settings."""
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
        "figures": _figure_rows(columns, runs),
        "history": history_pictures(runs),
        "settings": side_by_side([run.config for run in runs]),
        "environment": side_by_side(environments),
        "commands": [command_line(run.environment.get("command")) for run in runs],
    }


def _lede(runs: Sequence[RunData]) -> str:
    """What was trained on and judged, in one or two sentences."""
    known = [(run.prior, run.name) for run in runs if run.prior]
    if not known:
        return "No predictions yet: what was logged in training, and the settings."
    prior, owner = known[0]
    counts = prior.counts.double()
    source = next((name for run in runs if (name := _setting(run, "data", "source"))), None)
    sentences = [
        (f"{source}: " if source else "")
        + f"{prior.num_classes:,} classes, {counts.sum():,g} training samples"
        f" ({counts.max():,g} of the most frequent class, {counts.min():,g} of the rarest)."
    ]
    if any(other != prior for other, _ in known[1:]):
        sentences.append(f"Training counts differ between the runs; these are of {owner}.")
    tests = sorted({f"{len(run.scores.labels):,} {run.split}" for run in runs if run.scores})
    if tests:
        sentences.append(f"Judged on {' / '.join(tests)} samples.")
    return " ".join(sentences)


def _about(run: RunData) -> str:
    """The run in a few words, as far as its settings tell."""
    epochs, seed = _setting(run, "epochs"), _setting(run, "seed")
    words = [
        _setting(run, "method", "name") or _setting(run, "method"),
        _setting(run, "backbone"),
        _teacher(_setting(run, "teacher")),
        f"{epochs} epoch{'' if epochs == '1' else 's'}" if epochs else None,
        f"seed {seed}" if seed else None,
        f"logits express the {run.expressed} prior" if isinstance(run.expressed, str) else None,
    ]
    return ", ".join(word for word in words if word)


def _teacher(setting: str | None) -> str | None:
    if setting in (None, "none"):
        return None
    return "teacher trained first" if setting == "train" else f"teacher {setting}"


def _setting(run: RunData, *keys: str) -> str | None:
    value: Any = run.config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None or isinstance(value, Mapping) else str(value)


def _figure_rows(columns: Sequence[Column], runs: Sequence[RunData]) -> list[list[dict[str, Any]]]:
    """A row a run, a cell a figure: its text, whether it is the best, how far from the first."""
    found = []
    for column in columns:
        values = [run.metrics.get(column.key) for run in runs]
        found.append(
            [
                {
                    "text": column.text(value),
                    "best": best,
                    "difference": column.difference(value, values[0]) if place else "",
                }
                for place, (value, best) in enumerate(zip(values, column.best(values), strict=True))
            ]
        )
    return [list(row) for row in zip(*found, strict=True)]


def _groups(runs: Sequence[RunData]) -> str:
    """Each group, its rule and its size."""
    prior = next((run.prior for run in runs if run.prior), None)
    rules = {"many": f"over {MANY}", "medium": f"{FEW} to {MANY}", "few": f"under {FEW}"}
    sizes = (
        {name: f", {len(found):,} classes" for name, found in prior.groups().items()}
        if prior
        else {}
    )
    return "; ".join(f"{name} ({rule}{sizes.get(name, '')})" for name, rule in rules.items())


def _counts(runs: Sequence[RunData]) -> list[tuple[str, Markup]]:
    """A picture for each different class mix, and the runs that were trained on it."""
    mixes: dict[ClassPrior, list[RunData]] = {}
    for run in runs:
        if run.prior:
            mixes.setdefault(run.prior, []).append(run)
    return [
        (
            ", ".join(run.name for run in found) if len(mixes) > 1 else "",
            counts_picture(prior, found[0].class_names),
        )
        for prior, found in mixes.items()
    ]


def _confusions(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    return [
        {
            "series": series,
            "picture": confusion_picture(run.scores, run.prior, run.class_names),
            "pairs": confused_pairs(run.scores, run.class_names, PAIRS),
        }
        for series, run in enumerate(runs)
        if run.scores and run.prior
    ]


def _block(runs: Sequence[RunData]) -> str:
    """How many classes a cell of the confusion picture takes together; empty when it is one."""
    sizes = [run.prior.num_classes for run in runs if run.prior]
    return f"{sizes[0] / BLOCKS:.3g}" if sizes and sizes[0] > WHOLE else ""


def _classes(runs: Sequence[RunData]) -> dict[str, Any]:
    """A row a class, most frequent first; of very many classes the best and the worst found."""
    judged = [run for run in runs if run.scores]
    first = judged[0]
    prior, scores = first.prior, first.scores
    assert prior is not None
    assert scores is not None
    group_of = {c: name for name, found in prior.groups().items() for c in found.tolist()}
    tests = torch.bincount(scores.labels, minlength=prior.num_classes)
    recalls = [recall_of(run) if run.scores else None for run in runs]

    def row(index: int) -> dict[str, Any]:
        values = [None if recall is None else float(recall[index]) for recall in recalls]
        return {
            "name": first.class_names[index],
            "group": group_of[index],
            "count": f"{prior.counts[index]:,g}",
            "tests": f"{tests[index]:,}",
            "recalls": level_cells(RECALL, values),
        }

    order = by_count(prior)
    if len(order) <= MOST_ROWS:
        return {"parts": [("", [row(c) for c in order.tolist()])], "left_out": 0}
    mean = torch.stack([recall for recall in recalls if recall is not None]).nanmean(dim=0)
    found = order[~mean[order].isnan()]
    ranked = found[mean[found].argsort(stable=True)].tolist()
    ends = min(ENDS, len(ranked) // 2)
    parts = [
        (f"The {ends} that are found least", [row(c) for c in ranked[:ends]]),
        (f"The {ends} that are found most", [row(c) for c in reversed(ranked[-ends:])]),
    ]
    return {"parts": parts, "left_out": len(order) - 2 * ends}


def level_cells(column: Column, values: Sequence[float | None]) -> list[dict[str, Any]]:
    """A cell a run: the figure's text, whether it is the best, and the length of its bar."""
    return [
        {"text": column.text(value), "best": best, "share": _share(value)}
        for value, best in zip(values, column.best(values), strict=True)
    ]


def _share(value: float | None) -> str:
    """Length of the bar under a figure."""
    return "0" if value is None or math.isnan(value) else f"{value:.2f}"


def side_by_side(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nested settings as dotted names, those that differ between the runs apart."""
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
    """The command as it would be typed again."""
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
