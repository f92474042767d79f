"""Figures with a mark per class: training counts, and recall against them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from markupsafe import Markup
from torch import Tensor

from longtail.metrics import Confusion
from longtail.prior import FEW, MANY, ClassPrior
from longtail.report import svg
from longtail.report.run import RunData
from longtail.report.svg import Scale

WIDTH = 480.0
NAMED_ROWS = 24  # up to this many classes have a row with their name
TITLED_MARKS = 200  # up to this many classes show their name on hover
ROW, NAME_WIDTH, NAME_LETTERS = 22.0, 140.0, 14  # letters in the large print of a phone or paper
ROWS_TOP = 6.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 462.0, 46.0, 282.0
LIFT = 28  # of the y axis' title, above the names of the groups


def counts_picture(prior: ClassPrior, names: Sequence[str]) -> Markup:
    """Training images per class, most frequent first, with shaded groups."""
    order = by_count(prior)
    counts = prior.counts.double()
    label = f"Training images of {len(names)} classes, from the most to the least frequent"
    if len(names) > NAMED_ROWS:
        return _count_steps(counts[order], prior, label)
    rows = Rows.of([names[c] for c in order.tolist()])
    x = Scale(float(counts.min()) / 2, float(counts.max()), NAME_WIDTH, 372, log=True)
    parts = [rows.bands(prior), rows.axis(x, "training images (log scale)"), rows.labels()]
    for index, y in zip(order.tolist(), rows.middles, strict=True):
        end, half = x(float(counts[index])), (ROW - 8) / 2
        title = f"{names[index]}: {counts[index]:,g}"
        bar = f"M{NAME_WIDTH:g} {y - half:g}H{svg.number(end)}v{2 * half:g}H{NAME_WIDTH:g}z"
        parts += [svg.path(bar, "bar", title), svg.text(end + 6, y + 4, f"{counts[index]:,g}")]
    return svg.picture(WIDTH, rows.edges[-1] + 44, *parts, label=label)


def recall_picture(runs: Sequence[RunData]) -> Markup:
    """Recall of each class in each run, against its training count."""
    first = next(run for run in runs if run.scores)
    prior, names = first.prior, first.class_names
    assert prior is not None
    if len(names) > NAMED_ROWS:
        return _recall_scatter(runs)
    order = by_count(prior).tolist()
    rows = Rows.of([names[c] for c in order])
    x = Scale(0, 1, NAME_WIDTH, 412)
    parts = [rows.bands(prior), rows.axis(x, "recall (%)", percent=True), rows.labels()]
    recalls = [(series, run, recall_of(run)) for series, run in enumerate(runs) if run.scores]
    for index, y in zip(order, rows.middles, strict=True):
        known = [float(recall[index]) for _, _, recall in recalls if not recall[index].isnan()]
        if not known:
            parts.append(svg.text(NAME_WIDTH + 8, y + 4, "no test image", class_="t muted"))
            continue
        parts.append(svg.path(svg.line([(x(min(known)), y), (x(max(known)), y)]), "reach"))
        for number, (series, run, recall) in enumerate(recalls):
            value = float(recall[index])
            if not math.isnan(value):
                title = f"{names[index]}: {run.name} {100 * value:.1f} %"
                shift = 3 * (number - (len(recalls) - 1) / 2)  # equal values stay apart
                mark = svg.marker(series, x(value), y + shift)
                parts.append(svg.path(mark, f"mark r{series}", title))
    return svg.picture(WIDTH, rows.edges[-1] + 44, *parts, label="Recall of each class")


@dataclass(frozen=True)
class Rows:
    """One row per class with its full name, in as many lines as necessary.

    Args:
        names: lines of each name.
        edges: top of each row, and the bottom of the last one.
    """

    names: list[list[str]]
    edges: list[float]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Rows":
        """Rows of names, from the top."""
        lines = [svg.wrapped(name, NAME_LETTERS) for name in names]
        edges = [ROWS_TOP]
        for found in lines:
            edges.append(edges[-1] + ROW + svg.LINE_HEIGHT * (len(found) - 1))
        return cls(lines, edges)

    @property
    def middles(self) -> list[float]:
        """Height of the middle of each row."""
        return [(top + end) / 2 for top, end in pairwise(self.edges)]

    def labels(self) -> Markup:
        """The names."""
        return Markup("").join(
            svg.lines(NAME_WIDTH - 8, y + 4, found, "end")
            for found, y in zip(self.names, self.middles, strict=True)
        )

    def bands(self, prior: ClassPrior) -> Markup:
        """The groups as bands of rows, labelled on the right."""
        parts, first = [], 0
        for group, members in prior.groups().items():
            start, end = self.edges[first], self.edges[first + len(members)]
            if len(members):
                d = f"M0 {start:g}H{WIDTH:g}V{end:g}H0z"
                parts += [
                    svg.path(d, f"band {group}"),
                    svg.text(WIDTH - 6, (start + end) / 2 + 4, group, "end", "t muted"),
                ]
            first += len(members)
        return Markup("").join(parts)

    def axis(self, x: Scale, title: str, percent: bool = False) -> Markup:
        """Grid, ticks and title below the rows."""
        ticks, bottom = x.ticks(4), self.edges[-1]
        d = "".join(svg.line([(x(v), ROWS_TOP), (x(v), bottom)]) for v in ticks)
        parts: list[str] = [svg.path(d, "grid")]
        for value in ticks:
            content = f"{100 * value:g}" if percent else svg.compact(value)
            parts.append(svg.text(x(value), bottom + 17, content, "middle"))
        parts.append(svg.text((x.start + x.end) / 2, bottom + 36, title, "middle", "t title"))
        return Markup("").join(parts)


def by_count(prior: ClassPrior) -> Tensor:
    """Class indices from the most to the least frequent, equal ones by index."""
    return prior.counts.argsort(descending=True, stable=True)


def recall_of(run: RunData) -> Tensor:
    """(C,) recall of each class; NaN without a test image."""
    assert run.scores is not None
    return Confusion.from_scores(run.scores).recall()


def _recall_scatter(runs: Sequence[RunData]) -> Markup:
    evaluated = [(series, run) for series, run in enumerate(runs) if run.scores and run.prior]
    counts = torch.cat([run.prior.counts.double() for _, run in evaluated if run.prior])
    x = Scale(float(counts.max()) * 1.25, float(counts.min()) / 1.25, LEFT, RIGHT, log=True)
    y = Scale(0, 1, BOTTOM, TOP)
    borders = [min(max(x(count), LEFT), RIGHT) for count in (MANY, FEW)]
    spans = list(zip([LEFT, *borders], [*borders, RIGHT], strict=True))
    titles = "training images of the class (log scale)", "recall (%)"
    parts: list[str] = [
        _bands(spans),
        svg.axes(x, y, titles=titles, percent_y=True, lift=LIFT),
    ]
    means: list[str] = []
    for series, run in evaluated:
        parts.append(_class_marks(series, run, x, y))
        for (start, end), group in zip(spans, ("many", "medium", "few"), strict=True):
            mean = run.metrics[group]
            if not math.isnan(mean):
                d = svg.line([(start + 3, y(mean)), (end - 3, y(mean))])
                title = f"{run.name}, {group}: {100 * mean:.1f} %"
                means += [svg.path(d, "halo"), svg.path(d, f"mean r{series}", title)]
    label = "Recall of each class against its training images, with the mean of each group"
    return svg.picture(WIDTH, BOTTOM + 44, *parts, *means, label=label)


def _class_marks(series: int, run: RunData, x: Scale, y: Scale) -> Markup:
    """One mark per class; above `TITLED_MARKS` classes all in one path, to limit the page size."""
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
        f"{run.class_names[c]}: {counts[c]:,g} training images, {run.name} {100 * recall[c]:.1f} %"
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
    titles = ("classes, most frequent first", "training images (log scale)")
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
    """The groups as vertical bands, labelled at the top if there is room."""
    parts = []
    for group, (start, end) in zip(("many", "medium", "few"), spans, strict=True):
        if end - start > 0.5:
            d = f"M{svg.number(start)} {TOP:g}H{svg.number(end)}V{BOTTOM:g}H{svg.number(start)}z"
            parts.append(svg.path(d, f"band {group}"))
        if end - start > 50:
            parts.append(svg.text((start + end) / 2, TOP - 8, group, "middle", "t muted"))
    return Markup("").join(parts)
