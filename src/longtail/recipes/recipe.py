"""What a recipe is, and how the one of a data set and a method is found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The settings of one method on one data set.

    Args:
        source: the data set, as `longtail train` takes it.
        method: the method.
        settings: those in which the run differs from the defaults of `Config`.
        cost: what the run takes.
        expected: the figure to expect, and whose it is.
    """

    source: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str = "not measured"
    expected: str = "not measured"

    @property
    def command(self) -> str:
        """The command that runs it."""
        return f"longtail train {self.source} --method {self.method}"
