"""The figures of runs in rows and columns, and how a number is written there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "n/a"


@dataclass(frozen=True)
class Column:
    """A figure of the table.

    Args:
        key: in `longtail.metrics.classification_metrics`.
        title: over the column.
        percent: written in percent with one place, else as it is with three.
        higher: whether more is better.
    """

    key: str
    title: str
    percent: bool = True
    higher: bool = True

    def text(self, value: float | None) -> str:
        """The value as the table has it; n/a where it is undefined.

        Example:
            >>> Column("accuracy", "all").text(0.5234), Column("few", "few").text(float("nan"))
            ('52.3', 'n/a')
        """
        if value is None or math.isnan(value):
            return MISSING
        return f"{100 * value:.1f}" if self.percent else f"{value:.3f}"

    def difference(self, value: float | None, reference: float | None) -> str:
        """The distance to another run's value, signed; empty where one of them is undefined.

        Of the numbers as written, so that a reader who checks it finds no error of rounding.
        """
        texts = self.text(value), self.text(reference)
        if MISSING in texts or "inf" in texts:
            return ""
        distance = float(texts[0]) - float(texts[1])
        return f"{distance:+.{1 if self.percent else 3}f}".replace("-", "\N{MINUS SIGN}")

    def best(self, values: Sequence[float | None]) -> list[bool]:
        """Which values are the best as written; none where there is nothing to compare."""
        texts = [self.text(value) for value in values]
        known = [float(text) for text in texts if text != MISSING]
        if len(known) < 2 or min(known) == max(known):
            return [False] * len(texts)
        target = max(known) if self.higher else min(known)
        return [text != MISSING and float(text) == target for text in texts]


KEY_COLUMNS = (
    Column("accuracy", "all"),
    Column("many", "many"),
    Column("medium", "medium"),
    Column("few", "few"),
    Column("macro_f1", "macro-F1"),
    Column("ece", "ECE", percent=False, higher=False),
)
MORE_COLUMNS = (
    Column("balanced_accuracy", "balanced accuracy"),
    Column("nll", "NLL", percent=False, higher=False),
    Column("brier", "Brier", percent=False, higher=False),
)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column] = KEY_COLUMNS) -> None:
    """Prints the key figures of runs to the terminal, the best of each column in bold.

    Args:
        rows: one mapping per run: `run`, its name, and the metrics by the keys of the columns, as
            fractions. A metric that is missing or undefined is printed as n/a.
        columns: the columns; default: those of `classification_metrics`, ECE as it is, all else
            in percent.

    Example:
        >>> print_table([{"run": "ce", "accuracy": 0.5, "many": 0.75, "ece": 0.25}])
        run    all   many   medium   few   macro-F1     ECE
        ───────────────────────────────────────────────────
        ce    50.0   75.0      n/a   n/a        n/a   0.250
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=_box(), show_edge=False, pad_edge=False)
    table.add_column("run", overflow="fold")
    cells = []
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
        values = [row.get(column.key) for row in rows]
        best = column.best(values)
        cells.append(
            [
                Text(column.text(value), style="bold" if wins else "")
                for value, wins in zip(values, best, strict=True)
            ]
        )
    for number, row in enumerate(rows):
        table.add_row(Text(str(row["run"])), *(texts[number] for texts in cells))
    Console().print(table)


def _box() -> Any:
    from rich.box import Box

    return Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
