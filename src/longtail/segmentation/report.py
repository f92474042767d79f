"""The report on segmentation runs: IoU against pixel share, and truth next to prediction."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.report import RunData, svg
from longtail.report.class_pictures import by_count
from longtail.report.content import common_content, level_cells
from longtail.report.page import shown_together, write_page
from longtail.report.run import common_parts
from longtail.report.svg import Scale
from longtail.report.tables import Column
from longtail.segmentation.masks import class_colours
from longtail.segmentation.metrics import class_iou, pixel_groups
from longtail.segmentation.run import PixelRun

PIXEL_COLUMNS = (
    Column("miou", "mIoU"),
    Column("macc", "mAcc"),
    Column("pixel_accuracy", "pixels"),
    Column("head_iou", "head IoU"),
    Column("medium_iou", "medium IoU"),
    Column("tail_iou", "tail IoU"),
)
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640.0, 44.0, 620.0, 34.0, 290.0
NAMED_MARKS = 24  # up to this many classes are named in the figure
IOU = Column("iou", "IoU")


@dataclass(frozen=True, kw_only=True)
class PixelRunData(RunData):
    """A segmentation run in a report; its `prior` counts pixels.

    Args:
        confusion: (C, C), true against predicted class.
        samples: image, truth and prediction of each sample, as the bytes of PNG files.
    """

    prior: ClassPrior
    confusion: Tensor
    samples: tuple[dict[str, bytes], ...]


def load_pixel_run(folder: Path) -> PixelRunData:
    """Reads the folder of a finished segmentation run.

    Raises:
        InputError: when the folder is not one, or its training has not ended.
    """
    run = PixelRun(folder)
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
                kind: image.with_name(image.name.replace("image", kind)).read_bytes()
                for kind in ("image", "truth", "prediction")
            }
            for image in images
        ),
    )


def write_pixel_report(runs: Sequence[PixelRunData], path: str | Path) -> Path:
    """Writes one HTML page that compares segmentation runs, without scripts or other files.

    Args:
        runs: 1 to 6 runs with the same classes.
        path: the HTML file, which is written atomically.

    Returns: the path.
    Raises:
        InputError: when there is no run, there are too many, or their classes differ.
    """
    return write_page(Path(__file__).with_name("report.html"), _content(shown_together(runs)), path)


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
        f"Metrics of the {first.split} split, from one confusion matrix of all its pixels.",
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
    for position, c in enumerate(by_count(prior).tolist()):
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
            # Alternately above and below, to separate neighbours; near the axis all above.
            low, high = y(min(known)), y(max(known))
            second = high - 22 if min(known) < 0.1 else low + 18
            height = second if position % 2 else high - 8
            parts.append(svg.text(at, height, svg.shorten(name, 12), "middle", "t muted"))
    label = "IoU of each class against its share of the training pixels"
    return svg.picture(WIDTH, BOTTOM + 44, *parts, label=label)


def _classes(runs: Sequence[PixelRunData]) -> list[dict[str, Any]]:
    """One row per class, most frequent first."""
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
    """Image and truth once, then the prediction of each run that has the same sample."""
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
