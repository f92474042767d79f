"""Tables of class priors for the terminal: shifted test sets, and an estimated prior."""

from collections.abc import Mapping, Sequence
from typing import Any

from longtail.prior import ClassPrior
from longtail.report.tables import Column
from longtail.shift import PriorEstimate
from longtail.shift.protocol import set_name
from longtail.text import printable

FEW_IMAGES = 100  # of a test set: the standard error of its accuracy is up to 5 points
MOST = 40  # classes in the table of an estimated prior
METRICS = (
    Column("accuracy", "accuracy"),
    Column("ece", "ECE", percent=False, higher=False),
    Column("classwise_ece", "class-wise ECE", percent=False, higher=False, decimals=4),
    Column("brier", "Brier", percent=False, higher=False),
    Column("nll", "NLL", percent=False, higher=False),
)


def print_protocol(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the sizes of the test sets, and one table per metric: one row per prior.

    Args:
        rows: result of `longtail.training.evaluate_protocol`.
    """
    from rich.console import Console
    from rich.table import Table

    titles = [set_name(row["direction"], row["ratio"]) for row in rows]
    console = Console()
    console.print(
        "Test sets: F50 is imbalanced 50 to 1 as the training set is, B50 in the reverse order. "
        "Logits: raw, or adjusted to the known or the estimated class prior. The estimate sees no "
        "label of the images that it is applied to: each half of the test set serves the other as "
        "the labelled one."
    )
    least = min(row["samples"] for row in rows)
    if least < FEW_IMAGES:
        console.print(
            f"The smallest set has {least} image{'s' * (least != 1)}, so its metrics are mostly "
            "chance: no set has more images of a class than the rarest class of the test split "
            "has. Use a larger and balanced test split."
        )
    blocks = {"images": [("", [f"{row['samples']:,}" for row in rows])]}
    for metric in METRICS:
        blocks[metric.title] = [
            (prior, [metric.text(row["scores"][prior][metric.key]) for row in rows])
            for prior in ("raw", "known", "estimated")
        ]
    for title, lines in blocks.items():
        table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1))
        table.add_column(title, no_wrap=True)
        for column in titles:
            table.add_column(column, justify="right", no_wrap=True)
        for prior, cells in lines:
            table.add_row(prior, *cells)
        console.print()
        console.print(table)


def print_estimate(estimate: PriorEstimate, prior: ClassPrior, class_names: Sequence[str]) -> None:
    """Prints the estimated class prior of new images next to that of the training set.

    At most 40 classes are shown, those with the largest shares.

    Args:
        estimate: estimate for the new images.
        prior: class prior of the training set.
        class_names: name of each class.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("training", "estimate", "95 % interval", "used"):
        table.add_column(title, justify="right", no_wrap=True)
    shares = estimate.estimated
    for c in sorted(shares.argsort(descending=True)[:MOST].tolist()):
        low, high = estimate.interval[c].tolist()
        table.add_row(
            Text(printable(class_names[c])),
            *(f"{100 * share:.1f}" for share in (prior.probabilities[c], shares[c])),
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * estimate.prior[c]:.1f}",
        )
    console = Console()
    console.print("class prior, %")
    console.print(table)
    if len(shares) > MOST:
        console.print(f"and {len(shares) - MOST:,} classes with a smaller share")
    verdict = (
        "a shift: the estimated prior is used"
        if estimate.shifted
        else "no clear shift: the prior that the model expresses is kept"
    )
    console.print(f"{verdict} (p = {estimate.p_value:.2g})")
