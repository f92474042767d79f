"""Comparison of runs: a table for the terminal, and one self-contained HTML page."""

from longtail.report.page import write_report
from longtail.report.run import RunData, load_run
from longtail.report.tables import print_table

__all__ = ["RunData", "load_run", "print_table", "write_report"]
