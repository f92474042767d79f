"""The matrices of methods, imbalances and seeds behind the papers' tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from longtail.reproduce import lade_shift
from longtail.reproduce.cells import Cell, row_names
from longtail.reproduce.lade_shift import reproduce_lade_shift
from longtail.reproduce.matrix import train_matrix
from longtail.reproduce.results import table

__all__ = ["Cell", "reproduce_lade_shift", "row_names", "table", "tables_of", "train_matrix"]


def tables_of(source: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown tables of what `longtail.api.reproduce` returned."""
    return lade_shift.shift_table(rows) if source == lade_shift.NAME else table(rows)
