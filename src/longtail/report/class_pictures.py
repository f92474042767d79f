"""Pictures with a mark for every class: training counts, and recall against them."""

import math
from collections.abc import Sequence

import torch
from markupsafe import Markup
from torch import Tensor

from longtail.metrics import Confusion
from longtail.prior import FEW, MANY, ClassPrior
from longtail.report import svg
from longtail.report.run import RunData
from longtail.report.svg import Scale

WIDTH = 480.0
NAMED_ROWS = 24  # up to so many classes have a row with their name
TITLED_MARKS = 200  # up to so many classes tell their name when pointed at
ROW, NAME_WIDTH, NAME_LETTERS = 22.0, 140.0, 17
ROWS_TOP = 6.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 470.0, 46.0, 282.0
LIFT = 28  # of the y axis' title, above the names of the groups


def counts_picture(prior: ClassPrior, names: Sequence[str]) -> Markup:
    """Training samples of each class, most frequent first, the groups shaded."""
    order = by_count(prior)
    counts = prior.counts.double()
    label = f"Training samples of {len(names)} classes, from the most to the least frequent"
    if len(names) > NAMED_ROWS:
        return _count_steps(counts[order], prior, label)
    bottom = ROWS_TOP + ROW * len(order)
    x = Scale(float(counts.min()) / 2, float(counts.max()), NAME_WIDTH, 372, log=True)
    parts = [_row_bands(prior, bottom), _row_axis(x, bottom, "training samples (log scale)")]
    for row, index in enumerate(order.tolist()):
        y, end = ROWS_TOP + ROW * row, x(float(counts[index]))
        title = f"{names[index]}: {counts[index]:,g}"
        bar = f"M{NAME_WIDTH:g} {y + 4:g}H{svg.number(end)}v{ROW - 8:g}H{NAME_WIDTH:g}z"
        parts += [
            svg.text(NAME_WIDTH - 8, y + 15, svg.shorten(names[index], NAME_LETTERS), "end"),
            svg.path(bar, "bar", title),
            svg.text(end + 6, y + 15, f"{counts[index]:,g}"),
        ]
    return svg.picture(WIDTH, bottom + 44, *parts, label=label)


def recall_picture(runs: Sequence[RunData]) -> Markup:
    """Share of each class's test samples that each run finds, against its training count."""
    first = next(run for run in runs if run.scores)
    prior, names = first.prior, first.class_names
    assert prior is not None
    if len(names) > NAMED_ROWS:
        return _recall_scatter(runs)
    order = by_count(prior).tolist()
    bottom = ROWS_TOP + ROW * len(order)
    x = Scale(0, 1, NAME_WIDTH, 412)
    axis = _row_axis(x, bottom, "share of the class that is found (%)", percent=True)
    parts = [_row_bands(prior, bottom), axis]
    recalls = [(series, run, recall_of(run)) for series, run in enumerate(runs) if run.scores]
    for row, index in enumerate(order):
        y = ROWS_TOP + ROW * (row + 0.5)
        name = svg.shorten(names[index], NAME_LETTERS)
        parts.append(svg.text(NAME_WIDTH - 8, y + 4, name, "end"))
        known = [float(recall[index]) for _, _, recall in recalls if not recall[index].isnan()]
        if not known:
            parts.append(svg.text(NAME_WIDTH + 8, y + 4, "no test sample", class_="t muted"))
            continue
        parts.append(svg.path(svg.line([(x(min(known)), y), (x(max(known)), y)]), "reach"))
        for place, (series, run, recall) in enumerate(recalls):
            value = float(recall[index])
            if not math.isnan(value):
                title = f"{names[index]}: {run.name} {100 * value:.1f} %"
                shift = 3 * (place - (len(recalls) - 1) / 2)  # equal values stay apart
                mark = svg.marker(series, x(value), y + shift)
                parts.append(svg.path(mark, f"mark r{series}", title))
    return svg.picture(WIDTH, bottom + 44, *parts, label="Recall of each class")


def by_count(prior: ClassPrior) -> Tensor:
    """Class indices from the most to the least frequent, equal ones by index."""
    return prior.counts.argsort(descending=True, stable=True)


def recall_of(run: RunData) -> Tensor:
    """(C,) recall of each class; NaN without a test sample."""
    assert run.scores is not None
    scores = run.scores
    return Confusion.from_labels(scores.labels, scores.predicted, scores.num_classes).recall()


def _recall_scatter(runs: Sequence[RunData]) -> Markup:
    judged = [(series, run) for series, run in enumerate(runs) if run.scores and run.prior]
    counts = torch.cat([run.prior.counts.double() for _, run in judged if run.prior])
    x = Scale(float(counts.max()) * 1.25, float(counts.min()) / 1.25, LEFT, RIGHT, log=True)
    y = Scale(0, 1, BOTTOM, TOP)
    borders = [min(max(x(count), LEFT), RIGHT) for count in (MANY, FEW)]
    spans = list(zip([LEFT, *borders], [*borders, RIGHT], strict=True))
    titles = "training samples of the class (log scale)", "share that is found (%)"
    parts: list[str] = [
        _bands(spans),
        svg.axes(x, y, titles=titles, percent_y=True, lift=LIFT),
    ]
    means: list[str] = []
    for series, run in judged:
        parts.append(_class_marks(series, run, x, y))
        for (start, end), group in zip(spans, ("many", "medium", "few"), strict=True):
            mean = run.metrics[group]
            if not math.isnan(mean):
                d = svg.line([(start + 3, y(mean)), (end - 3, y(mean))])
                title = f"{run.name}, {group}: {100 * mean:.1f} %"
                means += [svg.path(d, "halo"), svg.path(d, f"mean r{series}", title)]
    label = "Recall of each class against its training samples, with the mean of each group"
    return svg.picture(WIDTH, BOTTOM + 44, *parts, *means, label=label)


def _class_marks(series: int, run: RunData, x: Scale, y: Scale) -> Markup:
    """One mark a class; above `TITLED_MARKS` classes all in one path, for a page of sane size."""
    assert run.prior is not None
    recall, counts = recall_of(run), run.prior.counts.double()
    small = len(counts) > TITLED_MARKS
    known = (~recall.isnan()).nonzero().flatten().tolist()
    marks = [
        svg.marker(series, x(float(counts[c])), y(float(recall[c])), 2 if small else 3)
        for c in known
    ]
    if small:
        return svg.path("".join(marks), f"dot r{series}")
    titles = [
        f"{run.class_names[c]}: {counts[c]:,g} training samples, {run.name} {100 * recall[c]:.1f} %"
        for c in known
    ]
    paths = (
        svg.path(mark, f"dot r{series}", title) for mark, title in zip(marks, titles, strict=True)
    )
    return Markup("").join(paths)


def _count_steps(ordered: Tensor, prior: ClassPrior, label: str) -> Markup:
    size = len(ordered)
    x = Scale(0, size, LEFT, RIGHT)
    low, high = float(ordered[-1]), float(ordered[0])
    y = Scale(low / 2, high * 1.25, BOTTOM, TOP, log=True)
    kept = sorted(
        {round(step * (size - 1) / (RIGHT - LEFT)) for step in range(int(RIGHT - LEFT) + 1)}
    )
    points = [
        (x(edge), y(float(ordered[rank])))
        for rank, following in zip(kept, [*kept[1:], size], strict=True)
        for edge in (rank, following)
    ]
    ends, start = [], 0
    for members in prior.groups().values():
        ends.append((x(start), x(start + len(members))))
        start += len(members)
    area = svg.line([(LEFT, BOTTOM), *points, (RIGHT, BOTTOM)]) + "z"
    titles = ("classes, most frequent first", "training samples (log scale)")
    return svg.picture(
        WIDTH,
        BOTTOM + 44,
        _bands(ends),
        svg.axes(x, y, titles=titles, lift=LIFT),
        svg.path(area, "area"),
        svg.path(svg.line(points), "outline"),
        label=label,
    )


def _bands(spans: Sequence[tuple[float, float]]) -> Markup:
    """The groups as upright bands, named at the top where there is room."""
    parts = []
    for group, (start, end) in zip(("many", "medium", "few"), spans, strict=True):
        if end - start > 0.5:
            d = f"M{svg.number(start)} {TOP:g}H{svg.number(end)}V{BOTTOM:g}H{svg.number(start)}z"
            parts.append(svg.path(d, f"band {group}"))
        if end - start > 50:
            parts.append(svg.text((start + end) / 2, TOP - 8, group, "middle", "t muted"))
    return Markup("").join(parts)


def _row_bands(prior: ClassPrior, bottom: float) -> Markup:
    """The groups as bands of rows, named at the right."""
    parts, start = [], ROWS_TOP
    for group, members in prior.groups().items():
        end = start + ROW * len(members)
        if len(members):
            d = f"M0 {start:g}H{WIDTH:g}V{end:g}H0z"
            middle = (start + end) / 2 + 4
            parts += [
                svg.path(d, f"band {group}"),
                svg.text(WIDTH - 6, middle, group, "end", "t muted"),
            ]
        start = end
    assert start == bottom
    return Markup("").join(parts)


def _row_axis(x: Scale, bottom: float, title: str, percent: bool = False) -> Markup:
    ticks = x.ticks(4)
    d = "".join(svg.line([(x(v), ROWS_TOP), (x(v), bottom)]) for v in ticks)
    parts: list[str] = [svg.path(d, "grid")]
    for value in ticks:
        content = f"{100 * value:g}" if percent else svg.compact(value)
        parts.append(svg.text(x(value), bottom + 17, content, "middle"))
    parts.append(svg.text((x.start + x.end) / 2, bottom + 36, title, "middle", "t title"))
    return Markup("").join(parts)
