"""Curves: calibration, and the training log."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from longtail.metrics import CalibrationCurve
from longtail.report import svg
from longtail.report.comparison import FEWEST
from longtail.report.run import RunData
from longtail.report.svg import Scale

LEFT, RIGHT, TOP, BOTTOM = 44.0, 462.0, 34.0, 270.0  # the last number of an axis has room
SMALL_RIGHT = 308.0
NOT_DRAWN = {"epoch", "seconds", "images_per_second"}
TITLES = {"loss": "training loss (nats)", "lr": "learning rate", "temperature": "temperature"}


def calibration_pictures(runs: Sequence[RunData]) -> tuple[Markup, Markup]:
    """Accuracy against confidence of each run, and the number of test images by confidence.

    The accuracy of a bin of fewer than `FEWEST` images is not drawn.
    """
    curves = [
        (series, run.name, CalibrationCurve.from_scores(run.scores))
        for series, run in enumerate(runs)
        if run.scores
    ]
    return _accuracy_picture(curves), _confidence_picture(curves)


def _accuracy_picture(curves: Sequence[tuple[int, str, CalibrationCurve]]) -> Markup:
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    titles = ("confidence (%)", "accuracy (%)")
    parts: list[str] = [
        svg.axes(x, y, titles=titles, percent_x=True, percent_y=True),
        svg.path(svg.line([(x(0), y(0)), (x(1), y(1))]), "ideal"),
    ]
    for series, name, curve in curves:
        points = [
            (x(confidence), y(accuracy), count)
            for confidence, accuracy, count in zip(
                curve.confidence.tolist(),
                curve.accuracy.tolist(),
                curve.count.tolist(),
                strict=True,
            )
            if count >= FEWEST
        ]
        parts.append(svg.path(svg.line([(px, py) for px, py, _ in points]), f"curve r{series}"))
        parts += [
            svg.path(svg.marker(series, px, py, 3), f"mark r{series}", f"{name}: {count:,} images")
            for px, py, count in points
        ]
    return svg.picture(480, BOTTOM + 44, *parts, label="Calibration: accuracy against confidence")


def _confidence_picture(curves: Sequence[tuple[int, str, CalibrationCurve]]) -> Markup:
    shares = [(series, curve.count.double() / curve.count.sum()) for series, _, curve in curves]
    highest = max(float(share.max()) for _, share in shares)
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1.05 * highest, BOTTOM, TOP)
    titles = ("confidence (%)", "share of the test images (%)")
    parts: list[str] = [svg.axes(x, y, titles=titles, percent_x=True, percent_y=True)]
    for series, share in shares:
        steps = [
            (x(edge / len(share)), y(value))
            for number, value in enumerate(share.tolist())
            for edge in (number, number + 1)
        ]
        parts.append(svg.path(svg.line(steps), f"curve r{series}"))
        # A mark on the highest step distinguishes the runs without colour.
        top = int(share.argmax())
        at = (x((top + 0.5) / len(share)), y(float(share[top])))
        parts.append(svg.path(svg.marker(series, *at), f"mark r{series}"))
    return svg.picture(480, BOTTOM + 44, *parts, label="Test images by confidence")


def history_pictures(runs: Sequence[RunData]) -> list[Markup]:
    """One figure each for the loss, its parts, the temperature and the learning rate."""
    keys: list[str] = []
    for run in runs:
        for record in run.history:
            keys += [key for key in record if key not in keys and key not in NOT_DRAWN]
    drawn = [key for key in keys if any(_points(run, key) for run in runs)]
    order = {"loss": -1, "temperature": 1, "lr": 2}
    drawn.sort(key=lambda key: order.get(key, 0))
    return [_history_picture(runs, key) for key in drawn]


def _history_picture(runs: Sequence[RunData], key: str) -> Markup:
    lines = [(series, _points(run, key)) for series, run in enumerate(runs)]
    points = [point for _, found in lines for point in found]
    epochs, values = [p[0] for p in points], [p[1] for p in points]
    low = 0.0 if key == "lr" else min(values)
    high = max(values)
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    last = max(max(epochs), min(epochs) + 1)
    x = Scale(min(epochs), last, LEFT, SMALL_RIGHT, whole=True)
    y = Scale(low if key == "lr" else low - pad, high + pad, 180, TOP)
    title = TITLES.get(key, key)
    parts: list[str] = [svg.axes(x, y, titles=("epoch", title))]
    for series, found in lines:
        places = [(x(epoch), y(value)) for epoch, value in found]
        parts.append(svg.path(svg.line(places), f"curve r{series}"))
        if places:  # a mark at the end distinguishes runs, and shows a run of one epoch
            parts.append(svg.path(svg.marker(series, *places[-1]), f"mark r{series}"))
    return svg.picture(326, 224, *parts, label=f"{title} in each epoch")


def _points(run: RunData, key: str) -> list[tuple[float, float]]:
    """Finite values of a logged metric by epoch."""
    points = []
    for number, record in enumerate(run.history, 1):
        value = record.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((float(record.get("epoch", number)), float(value)))
    return points
