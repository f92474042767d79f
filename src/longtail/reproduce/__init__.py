"""The matrix of methods, imbalances and seeds behind the papers' figures, from one command."""

from longtail.reproduce.cells import Cell, row_names
from longtail.reproduce.matrix import reproduce
from longtail.reproduce.results import table

__all__ = ["Cell", "reproduce", "row_names", "table"]
