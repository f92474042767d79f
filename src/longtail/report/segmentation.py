"""The page of segmentation runs: IoU against pixel share, truth and prediction side by side."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from longtail.data.segmentation import class_colours
from longtail.errors import InputError
from longtail.metrics import class_iou, pixel_groups
from longtail.prior import ClassPrior
from longtail.report import svg
from longtail.report.class_pictures import by_count
from longtail.report.content import common_content, level_cells
from longtail.report.page import shown_together, write_page
from longtail.report.run import RunData, common_parts
from longtail.report.svg import Scale
from longtail.report.tables import PIXEL_COLUMNS, Column
from longtail.training.segmentation import PixelRun

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640.0, 44.0, 620.0, 34.0, 290.0
NAMED_MARKS = 24  # up to so many classes are named in the picture
IOU = Column("iou", "IoU")


@dataclass(frozen=True, kw_only=True)
class PixelRunData(RunData):
    """A segmentation run, as the page shows it; its `prior` counts pixels.

    Args:
        confusion: (C, C), true against predicted.
        samples: of each sample its image, truth and prediction, as the bytes of PNG files.
    """

    prior: ClassPrior
    confusion: Tensor
    samples: tuple[dict[str, bytes], ...]


def load_pixel_run(folder: Path) -> PixelRunData:
    """Reads the folder of a finished segmentation run.

    Raises:
        ValueError: when it is none, or has not ended.
    """
    run = PixelRun(folder)
    if run.task != "segmentation":
        raise InputError(f"{folder} is no run of segmentation; a page shows runs of one task")
    confusion = run.confusion()
    images = sorted((folder / "samples").glob("*-image.png"))
    return PixelRunData(
        **common_parts(run),
        class_names=tuple(run.model_card()["class_names"]),
        prior=run.prior,
        confusion=confusion,
        split=run.metrics["split"],
        samples=tuple(
            {
                part: image.with_name(image.name.replace("image", part)).read_bytes()
                for part in ("image", "truth", "prediction")
            }
            for image in images
        ),
    )


def write_pixel_report(runs: Sequence[PixelRunData], path: str | Path) -> Path:
    """Writes one page that shows segmentation runs side by side: no script and no other file.

    Args:
        runs: 1 to 6 of the same classes.
        path: of the HTML file; it is written whole or not at all.

    Returns: the path.
    Raises:
        ValueError: when there is no run, there are too many, or their classes differ.
    """
    return write_page("segmentation.html", _content(shown_together(runs)), path)


def _content(runs: Sequence[PixelRunData]) -> dict[str, Any]:
    """The values of the template."""
    first = runs[0]
    groups = {
        name: ", ".join(first.class_names[c] for c in members.tolist())
        for name, members in pixel_groups(first.prior).items()
    }
    return {
        **common_content(runs, PIXEL_COLUMNS),
        "lede": f"{len(first.class_names)} classes, {first.prior.counts.sum():,} training pixels; "
        f"{first.class_names[int(first.prior.counts.argmax())]} has {first.prior.imbalance:,.0f} "
        f"times as many as {first.class_names[int(first.prior.counts.argmin())]}. "
        f"Figures of the {first.split} part, from one confusion matrix of all its pixels.",
        "groups": groups,
        "iou": iou_picture(runs),
        "classes": _classes(runs),
        "samples": _samples(runs),
        "colours": _colours(first.class_names),
    }


def iou_picture(runs: Sequence[PixelRunData]) -> Markup:
    """IoU of each class against its share of the training pixels, from frequent to rare."""
    prior, names = runs[0].prior, runs[0].class_names
    share = 100 * prior.probabilities
    x = Scale(float(share.max()) * 1.4, float(share.min()) / 1.4, LEFT, RIGHT, log=True)
    y = Scale(0, 1, BOTTOM, TOP)
    titles = "share of the training pixels in percent (log scale)", "IoU (%)"
    parts: list[str] = [svg.axes(x, y, titles=titles, percent_y=True)]
    values = [class_iou(run.confusion) for run in runs]
    for place, c in enumerate(by_count(prior).tolist()):
        name = names[c]
        known = [float(iou[c]) for iou in values if not torch.isnan(iou[c])]
        at = x(float(share[c]))
        if len(known) > 1:
            parts.append(svg.path(svg.line([(at, y(min(known))), (at, y(max(known)))]), "reach"))
        for series, (run, iou) in enumerate(zip(runs, values, strict=True)):
            if not torch.isnan(iou[c]):
                title = f"{name}: {share[c]:.2g} % of the pixels, {run.name} {100 * iou[c]:.1f}"
                mark = svg.marker(series, at, y(float(iou[c])))
                parts.append(svg.path(mark, f"mark r{series}", title))
        if known and len(names) <= NAMED_MARKS:
            # In turn above and below, so that neighbours keep apart; near the axis all above.
            low, high = y(min(known)), y(max(known))
            second = high - 22 if min(known) < 0.1 else low + 18
            height = second if place % 2 else high - 8
            parts.append(svg.text(at, height, svg.shorten(name, 12), "middle", "t muted"))
    label = "IoU of each class against its share of the training pixels"
    return svg.picture(WIDTH, BOTTOM + 44, *parts, label=label)


def _classes(runs: Sequence[PixelRunData]) -> list[dict[str, Any]]:
    """A row a class, most frequent first."""
    prior = runs[0].prior
    group_of = {c: name for name, group in pixel_groups(prior).items() for c in group.tolist()}
    values = [class_iou(run.confusion) for run in runs]
    rows = []
    for c in by_count(prior).tolist():
        ious = [float(iou[c]) for iou in values]
        rows.append(
            {
                "name": runs[0].class_names[c],
                "group": group_of[c],
                "share": f"{100 * prior.probabilities[c]:.2f}",
                "cells": level_cells(IOU, ious),
            }
        )
    return rows


def _samples(runs: Sequence[PixelRunData]) -> list[dict[str, Any]]:
    """Image and truth once, then what each run that has the same sample predicts."""
    return [
        {
            "image": _source(sample["image"]),
            "truth": _source(sample["truth"]),
            "predictions": [
                (run.name, _source(run.samples[number]["prediction"]))
                for run in runs
                if number < len(run.samples) and run.samples[number]["truth"] == sample["truth"]
            ],
        }
        for number, sample in enumerate(runs[0].samples)
    ]


def _source(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _colours(names: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (f"#{r:02x}{g:02x}{b:02x}", name)
        for (r, g, b), name in zip(class_colours(len(names)).tolist(), names, strict=True)
    ]
