"""The matrix of methods, imbalances and seeds behind a paper's table."""

from longtail.reproduce.cells import Cell, row_names
from longtail.reproduce.matrix import train_matrix
from longtail.reproduce.results import table

__all__ = ["Cell", "row_names", "table", "train_matrix"]
