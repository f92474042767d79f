"""Just enough SVG for the figures of the page.

Written by hand rather than with matplotlib, so that text stays text in the page's own font, and
colours are CSS variables: one figure serves light, dark and print.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from longtail.text import printable

MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")
TEXT_HEIGHT = 12
LINE_HEIGHT = 15


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An SVG element; everything but `Markup` is escaped, `_` in names stands for `-`.

    Examples:
        >>> print(element("text", "<b>", x=1.26, text_anchor="end"))
        <text x="1.3" text-anchor="end">&lt;b&gt;</text>
    """
    parts = [
        f' {key.strip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inner = "".join(_escaped(child) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{inner}</{name}>")


def _escaped(value: str | float) -> Markup:
    if isinstance(value, Markup):
        return value
    return escape(number(value) if isinstance(value, float) else printable(str(value)))


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def picture(width: float, height: float, *children: str, label: str, fixed: bool = False) -> Markup:
    """The whole figure.

    Args:
        width: in units of the drawing, which are pixels at its natural size.
        height: the same.
        children: its elements.
        label: description for screen readers.
        fixed: scroll rather than shrink on a narrow screen.
    """
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        style=f"width:{number(width)}px",
        class_="fixed" if fixed else None,
        role="img",
        aria_label=label,
    )


def text(x: float, y: float, content: str, anchor: str = "start", class_: str = "t") -> Markup:
    """A line of text with its baseline at y."""
    return element("text", content, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def lines(x: float, y: float, content: Sequence[str], anchor: str = "start") -> Markup:
    """Lines of text, vertically centred on one whose baseline is at y."""
    top = y - LINE_HEIGHT * (len(content) - 1) / 2
    return Markup("").join(
        text(x, top + LINE_HEIGHT * number, row, anchor) for number, row in enumerate(content)
    )


def path(d: str, class_: str, title: str | None = None) -> Markup:
    """A path; `title` is shown on hover."""
    return element("path", *([element("title", title)] if title else []), d=d, class_=class_)


def line(points: Iterable[tuple[float, float]]) -> str:
    """Path data of a line through points; NaN breaks it."""
    words: list[str] = []
    pen = "M"
    for x, y in points:
        if math.isnan(x) or math.isnan(y):
            pen = "M"
            continue
        words.append(f"{pen}{number(x)} {number(y)}")
        pen = "L"
    return "".join(words)


def marker(series: int, x: float, y: float, radius: float = 3.5) -> str:
    """Path data of a run's mark; the six shapes distinguish runs without colour."""
    r = radius
    start = f"M{number(x)} {number(y)}"
    shape = MARKERS[series]
    if shape == "circle":
        return f"{start}m{-r:g} 0a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
    if shape == "square":
        s = round(0.88 * r, 2)
        return f"{start}m{-s:g} {-s:g}h{2 * s:g}v{2 * s:g}h{-2 * s:g}z"
    if shape == "triangle":
        w, h = round(1.1 * r, 2), round(1.9 * r, 2)
        return f"{start}m0 {-1.2 * r:.3g}l{w:g} {h:g}h{-2 * w:g}z"
    if shape == "diamond":
        s = round(1.25 * r, 2)
        return f"{start}m0 {-s:g}l{s:g} {s:g}l{-s:g} {s:g}l{-s:g} {-s:g}z"
    if shape == "cross":
        s = round(0.9 * r, 2)
        return f"{start}m{-s:g} {-s:g}l{2 * s:g} {2 * s:g}m{-2 * s:g} 0l{2 * s:g} {-2 * s:g}"
    s = round(1.2 * r, 2)
    return f"{start}m{-s:g} 0h{2 * s:g}m{-s:g} {-s:g}v{2 * s:g}"


def shorten(name: str, length: int) -> str:
    """A name cut to the width of about `length` small letters.

    Examples:
        >>> shorten("Grauschnäpper, juvenil", 10)
        'Grauschn…'
    """
    widths = [_letter_width(letter) for letter in name]
    if sum(widths) <= length:
        return name
    kept, used = 0, 1.0
    while used + widths[kept] <= length:
        used += widths[kept]
        kept += 1
    return name[:kept].rstrip() + "…"


def text_width(name: str) -> float:
    """Width of a text in small letters.

    Examples:
        >>> text_width("Aa"), text_width("日本")
        (2.4, 4.0)
    """
    return float(sum(map(_letter_width, name)))


def wrapped(name: str, length: int) -> list[str]:
    """A name in lines of at most the width of `length` small letters, broken at blanks if possible.

    Examples:
        >>> wrapped("Grauschnäpper, juvenil", 17)
        ['Grauschnäpper,', 'juvenil']
        >>> wrapped("Donaudampfschiff", 9)
        ['Donaudam', 'pfschiff']
    """
    lines = [""]
    for word in printable(name).split():
        joined = f"{lines[-1]} {word}".strip()
        if text_width(joined) <= length:
            lines[-1] = joined
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = lines[-1] or word
        while text_width(lines[-1]) > length:
            kept = 1
            while text_width(lines[-1][: kept + 1]) <= length:
                kept += 1
            lines[-1:] = [lines[-1][:kept], lines[-1][kept:]]
    return lines


def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 2
    return 1.4 if letter.isupper() else 1


def compact(value: float) -> str:
    """The label of a tick.

    Examples:
        >>> [compact(value) for value in (3e6, 20000.0, 0.05, 2e-5)]
        ['3M', '20,000', '0.05', '2e-05']
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


@dataclass(frozen=True)
class Scale:
    """Maps values to coordinates.

    Args:
        low: value at `start`.
        high: value at `end`; differs from `low`, and is below it on a scale that runs down.
        start: coordinate in the drawing.
        end: coordinate in the drawing, on either side of `start`.
        log: logarithmic; both values are then above zero.
        whole: ticks at whole numbers only.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """Coordinate of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the scale, approximately `about` of them."""
        low, high = sorted((self.low, self.high))
        if not self.log:
            ticks = _linear_ticks(low, high, about)
            return [tick for tick in ticks if not self.whole or tick == round(tick)]
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for factors, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
            powers = range(first, last + 1, step)
            values = [factor * 10.0**power for power in powers for factor in factors]
            inside = [value for value in values if low <= value <= high]
            if len(inside) <= about + 2:
                break
        return inside if len(inside) > 1 else _linear_ticks(low, high, about)


def _linear_ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def axes(
    x: Scale,
    y: Scale,
    *,
    titles: tuple[str, str],
    percent_x: bool = False,
    percent_y: bool = False,
    lift: float = 10,
) -> Markup:
    """Grid, ticks and titles of a figure with two axes; `lift` raises the title of y."""
    ticks_x, ticks_y = x.ticks(), y.ticks()
    grid = [line([(x(v), y.start), (x(v), y.end)]) for v in ticks_x]
    grid += [line([(x.start, y(v)), (x.end, y(v))]) for v in ticks_y]
    parts: list[str] = [path("".join(grid), "grid")]
    for value in ticks_x:
        content = f"{100 * value:g}" if percent_x else compact(value)
        parts.append(text(x(value), y.start + TEXT_HEIGHT + 5, content, "middle"))
    for value in ticks_y:
        content = f"{100 * value:g}" if percent_y else compact(value)
        parts.append(text(x.start - 6, y(value) + 4, content, "end"))
    middle = (x.start + x.end) / 2
    parts.append(text(middle, y.start + 2 * TEXT_HEIGHT + 12, titles[0], "middle", "t title"))
    parts.append(text(x.start - 6, y.end - lift, titles[1], "start", "t title"))
    return Markup("").join(parts)
