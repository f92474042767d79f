"""The confusion matrix as a figure, and the most confused pairs of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from markupsafe import Markup
from torch import Tensor

from longtail.metrics import SampleScores, wilson_interval
from longtail.prior import ClassPrior
from longtail.report import svg
from longtail.report.class_pictures import by_count

NUMBERED, NAMED, WHOLE = 12, 40, 100  # most classes with numbers, with names, with own cells
BLOCKS = 50  # rows and columns of the figure with more classes
LEVELS = 20
SIDE, NAME_LETTERS = 360.0, 15


@dataclass(frozen=True)
class ConfusedPair:
    """A class, another one that its test images are mistaken for, and how often."""

    true: str
    predicted: str
    count: int
    support: int

    @property
    def share(self) -> float:
        """Share of the class's test images."""
        return self.count / self.support


def confused_pairs(scores: SampleScores, names: Sequence[str], most: int) -> list[ConfusedPair]:
    """The `most` confused pairs, by the lower bound of their share of the true class.

    Sorted by the bound, since 2 of 4 images say less than 10 of 25, then by index.
    """
    wrong = ~scores.correct
    pairs = scores.labels[wrong] * scores.num_classes + scores.predicted[wrong]
    found, counts = torch.unique(pairs, return_counts=True)
    support = torch.bincount(scores.labels, minlength=scores.num_classes)
    low, _ = wilson_interval(counts, support[found // scores.num_classes])
    best = low.argsort(descending=True, stable=True)[:most]
    return [
        ConfusedPair(
            names[pair // scores.num_classes],
            names[pair % scores.num_classes],
            count,
            int(support[pair // scores.num_classes]),
        )
        for pair, count in zip(found[best].tolist(), counts[best].tolist(), strict=True)
    ]


def confusion_shares(scores: SampleScores, order: Tensor, blocks: int) -> Tensor:
    """The row-normalised confusion matrix, classes in the given order and grouped in blocks.

    Counted from the pairs: the whole matrix of 8,142 classes would take 530 MB.

    Returns: (blocks, blocks), mean over the classes of a row's block of the share of their test
        images that is predicted as a class of the column's; NaN rows where no class has an image.
    """
    count = scores.num_classes
    block_of = torch.empty(count, dtype=torch.int64)
    block_of[order] = torch.arange(count) * blocks // count
    support = torch.bincount(scores.labels, minlength=count)
    weights = 1 / support[scores.labels].double()
    cells = block_of[scores.labels] * blocks + block_of[scores.predicted]
    sums = torch.bincount(cells, weights=weights, minlength=blocks**2).view(blocks, blocks)
    classes = torch.bincount(block_of[support > 0], minlength=blocks)
    return sums / classes[:, None]


def confusion_picture(scores: SampleScores, prior: ClassPrior, names: Sequence[str]) -> Markup:
    """True classes as rows, most frequent first; predicted classes as columns; dark is often."""
    order = by_count(prior)
    if len(names) <= NAMED:
        labels = [names[c] for c in order] if not numbered(names) else None
        return _named(confusion_shares(scores, order, len(names)), labels)
    blocks = len(names) if len(names) <= WHOLE else BLOCKS
    return _coarse(confusion_shares(scores, order, blocks), prior)


def numbered(names: Sequence[str]) -> bool:
    """Whether the figure numbers its classes because a name is too long for the margin."""
    return len(names) <= NAMED and max(map(svg.text_width, names)) > NAME_LETTERS


def shade_legend() -> Markup:
    """The legend of the shades."""
    parts: list[str] = []
    for number, share in enumerate((0.01, 0.05, 0.25, 0.5, 1.0)):
        x = 10 + 52.0 * number
        cell = svg.element(
            "g", svg.path(f"M{x:g} 2h52v12h-52z", "shade"), fill_opacity=_level(share)
        )
        parts += [cell, svg.text(x + 26, 29, f"{100 * share:g} %", "middle")]
    return svg.picture(280, 34, *parts, label="Shades from 1 to 100 percent")


def _level(share: float) -> str:
    """Opacity of a share: a power below 1, so that small shares are visible, in `LEVELS` steps."""
    return f"{round(share**0.4 * LEVELS) / LEVELS:g}"


def _cells(shares: Tensor, left: float, top: float, cell: float) -> Markup:
    """Shaded cells, one path per shade."""
    gap = 1 if cell > 8 else 0
    side = svg.number(cell - gap)
    shades: dict[str, list[str]] = {}
    for row, values in enumerate(shares.tolist()):
        for column, share in enumerate(values):
            level = _level(share) if share > 0 else "0"  # NaN is not above 0
            if level != "0":
                start = f"M{svg.number(left + column * cell)} {svg.number(top + row * cell)}"
                shades.setdefault(level, []).append(f"{start}h{side}v{side}h-{side}z")
    paths = (
        svg.element("g", svg.path("".join(found), "shade"), fill_opacity=level)
        for level, found in sorted(shades.items())
    )
    return Markup("").join(paths)


def _frame(left: float, top: float, side: float) -> Markup:
    return svg.path(f"M{left:g} {top:g}h{side:g}v{side:g}h-{side:g}z", "frame")


def _named(shares: Tensor, names: Sequence[str] | None) -> Markup:
    """Rows and columns with names, or with numbers from 1."""
    count, left, top = len(shares), 118.0 if names else 40.0, 22.0
    cell = max(12.5, min(60.0, SIDE / count))
    side = cell * count
    parts: list[str] = [_frame(left, top, side), _cells(shares, left, top, cell)]
    labels = names or [str(number + 1) for number in range(count)]
    for rank, label in enumerate(labels):
        middle = (rank + 0.5) * cell
        x, y = left + middle + 4, top + side + 6
        turn = f"rotate(-90 {svg.number(x)} {svg.number(y)})"
        parts += [
            svg.text(left - 6, top + middle + 4, label, "end"),
            svg.element("g", svg.text(x, y, label, "end"), transform=turn),
        ]
        if shares[rank].isnan().all():
            parts.append(svg.text(left + 6, top + middle + 4, "no test image", class_="t muted"))
    if count <= NUMBERED:
        parts.append(_numbers(shares, left, top, cell))
    title = "predicted class" + (", percent of the row" if count <= NUMBERED else "")
    parts += [
        svg.text(left - 6, 14, "true", "end", "t title"),
        svg.text(left + 2, 14, title, "start", "t title"),
    ]
    # Room for the rotated labels, in the larger letters of a narrow screen.
    longest = max(map(svg.text_width, labels))
    width, height = max(left + side + 8, 340), top + side + 14 + 9 * longest
    return svg.picture(width, height, *parts, label="Confusion matrix", fixed=width > 490)


def _numbers(shares: Tensor, left: float, top: float, cell: float) -> Markup:
    parts = []
    for row, values in enumerate(shares.tolist()):
        for column, share in enumerate(values):
            if share > 0.005:
                class_ = "t cell on" if share >= 0.3 else "t cell"
                x, y = left + (column + 0.5) * cell - 0.5, top + (row + 0.5) * cell + 4
                parts.append(svg.text(x, y, f"{100 * share:.0f}", "middle", class_))
    return Markup("").join(parts)


def _coarse(shares: Tensor, prior: ClassPrior) -> Markup:
    left, top = 70.0, 22.0
    scale = svg.Scale(0, prior.num_classes, 0, SIDE)
    cells = _cells(shares, left, top, SIDE / len(shares))
    parts: list[str] = [_frame(left, top, SIDE), cells]
    start = 0
    for group, members in prior.groups().items():
        end = start + len(members)
        middle = scale((start + end) / 2)
        if scale(end) - scale(start) > 20:
            parts.append(svg.text(left - 8, top + middle + 4, group, "end"))
        if scale(end) - scale(start) > 8 * len(group):
            parts.append(svg.text(left + middle, top + SIDE + 18, group, "middle"))
        if 0 < start < prior.num_classes and len(members):
            x, y = left + scale(start), top + scale(start)
            across = [(left, y), (left + SIDE, y)]
            parts.append(
                svg.path(svg.line([(x, top), (x, top + SIDE)]) + svg.line(across), "divide")
            )
        start = end
    parts += [
        svg.text(left - 14, 14, "true", "end", "t title"),
        svg.text(left, 14, "predicted class, most frequent first", "start", "t title"),
    ]
    label = "Confusion matrix, classes from the most to the least frequent"
    return svg.picture(left + SIDE + 10, top + SIDE + 28, *parts, label=label)
