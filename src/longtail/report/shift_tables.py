"""Tables of class mixes for the terminal: shifted test sets, and an estimated mix."""

from collections.abc import Mapping, Sequence
from typing import Any

from longtail.prior import ClassPrior
from longtail.report.tables import Column
from longtail.shift import PriorEstimate

FIGURES = (
    Column("accuracy", "accuracy"),
    Column("ece", "ECE", percent=False, higher=False),
    Column("brier", "Brier", percent=False, higher=False),
    Column("nll", "NLL", percent=False, higher=False),
)


def print_protocol(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table for each figure: a row for each prior, a column for each test set.

    Args:
        rows: of `longtail.training.evaluate_protocol`.
    """
    from rich.console import Console
    from rich.table import Table

    titles = [
        "uniform" if row["ratio"] == 1 else f"{row['direction'][0].upper()}{row['ratio']:g}"
        for row in rows
    ]
    console = Console()
    console.print(
        "Test sets: F50 leans as the training set does, 50 to 1; B50 the other way. Logits: raw, "
        "or adjusted to the known or the estimated class mix. The estimate sees no label of the "
        "images that it is applied to: each half of the test set serves the other as the "
        "labelled one."
    )
    for figure in FIGURES:
        table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1))
        table.add_column(figure.title, no_wrap=True)
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
        for prior in ("raw", "known", "estimated"):
            values = [row["scores"][prior][figure.key] for row in rows]
            table.add_row(prior, *map(figure.text, values))
        console.print()
        console.print(table)


def print_estimate(
    estimate: PriorEstimate, prior: ClassPrior, class_names: Sequence[str], most: int = 40
) -> None:
    """Prints the class mix that was found in new images beside that of the training set.

    Args:
        estimate: of the new images.
        prior: of the training set.
        class_names: name of each class.
        most: classes to show, those whose share is largest.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("training", "found", "95 % interval", "used"):
        table.add_column(title, justify="right", no_wrap=True)
    shares = estimate.estimated
    for c in sorted(shares.argsort(descending=True)[:most].tolist()):
        low, high = estimate.interval[c].tolist()
        table.add_row(
            Text(class_names[c]),
            *(f"{100 * share:.1f}" for share in (prior.probabilities[c], shares[c])),
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * estimate.prior[c]:.1f}",
        )
    console = Console()
    console.print("class mix, %")
    console.print(table)
    if len(shares) > most:
        console.print(f"and {len(shares) - most:,} classes with a smaller share")
    verdict = (
        "a shift: the mix that was found is used"
        if estimate.shifted
        else ("no clear shift: the mix that the model expresses is kept")
    )
    console.print(f"{verdict} (p = {estimate.p_value:.2g})")
