"""What a recipe is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_PUBLISHED = "none published for these settings"


@dataclass(frozen=True)
class Recipe:
    """The settings of one method on one data set.

    Args:
        source: the data set, as `longtail train` takes it.
        method: the method.
        settings: those in which the run differs from the defaults of `Config`.
        cost: what the run takes.
        expected: the figure to expect, and whose it is.
        options: what the command needs besides.
    """

    source: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str = "not measured"
    expected: str = "not measured"
    options: str = ""

    @property
    def command(self) -> str:
        """The command that runs it."""
        return f"longtail train {self.source} --method {self.method} {self.options}".rstrip()


def overlay(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed; nested ones are merged.

    Example:
        >>> overlay({"lr": 0.1, "method": {"width": 32}}, {"method": {"hidden": 64}})
        {'lr': 0.1, 'method': {'width': 32, 'hidden': 64}}
    """
    merged = dict(settings)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = overlay(merged[name], value) if both else value
    return merged
