"""Tables of the metrics of runs, and the format of numbers in them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longtail.text import printable

MISSING = "n/a"


@dataclass(frozen=True)
class Column:
    """A metric of the table.

    Args:
        key: name in `longtail.metrics.classification_metrics`.
        title: heading.
        percent: written in percent with one decimal, else unchanged.
        higher: whether more is better.
        decimals: decimals of a value that is not in percent.
    """

    key: str
    title: str
    percent: bool = True
    higher: bool = True
    decimals: int = 3

    def text(self, value: float | None) -> str:
        """The value as written in the table; n/a if it is undefined.

        Examples:
            >>> Column("accuracy", "all").text(0.5234), Column("few", "few").text(float("nan"))
            ('52.3', 'n/a')
        """
        if value is None or math.isnan(value):
            return MISSING
        return f"{100 * value:.1f}" if self.percent else f"{value:.{self.decimals}f}"

    def difference(self, value: float | None, reference: float | None) -> str:
        """The signed difference from another run's value; empty if one of them is undefined.

        Computed from the numbers as written, so that it is consistent for a reader who checks it.
        """
        texts = self.text(value), self.text(reference)
        if MISSING in texts or "inf" in texts:
            return ""
        distance = float(texts[0]) - float(texts[1])
        return f"{distance:+.{1 if self.percent else self.decimals}f}".replace(
            "-", "\N{MINUS SIGN}"
        )


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
    Column("classwise_ece", "class-wise ECE", percent=False, higher=False, decimals=4),
    Column("nll", "NLL", percent=False, higher=False),
    Column("brier", "Brier", percent=False, higher=False),
)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column] = KEY_COLUMNS) -> None:
    """Prints the key metrics of runs to the terminal.

    Args:
        rows: one mapping per run: `run`, its name, and the metrics by the keys of the columns, as
            fractions. A metric that is missing or undefined is printed as n/a.
        columns: the columns; default: those of `classification_metrics`, all in percent except ECE.

    Examples:
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
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for row in rows:
        texts = (column.text(row.get(column.key)) for column in columns)
        table.add_row(Text(printable(str(row["run"]))), *texts)
    console = Console()
    console.print(table)
    if covered := macro_f1_classes(rows):
        console.print(f"macro-F1: mean over {covered}", highlight=False)


def macro_f1_classes(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many classes the macro-F1 of each run covers; empty if unknown."""
    known = {row["macro_f1_classes"] for row in rows if "macro_f1_classes" in row}
    numbers = [f"{count:,g}" for count in sorted(known)]
    classes = "class" if numbers == ["1"] else "classes"
    return f"{' or '.join(numbers)} {classes}" if numbers else ""


def _box() -> Any:
    from rich.box import Box

    return Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
