"""The form of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_PUBLISHED = "none published for these settings"


@dataclass(frozen=True)
class Recipe:
    """The settings of one method on one data set.

    Args:
        source: name of the data set, as for `longtail train`.
        method: name of the method.
        settings: settings that differ from the defaults of `Config`.
        cost: time that the run takes.
        expected: the accuracy to expect, and its source.
        options: further options of the command.
        imbalance: the imbalance that the recipe is for; None: every other one.
    """

    source: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str = "not measured"
    expected: str = "not measured"
    options: str = ""
    imbalance: float | None = None

    @property
    def command(self) -> str:
        """The command that runs it."""
        imbalance = f"--data.imbalance {self.imbalance:g}" if self.imbalance else ""
        words = ("longtail train", self.source, "--method", self.method, imbalance, self.options)
        return " ".join(word for word in words if word)


def overlay(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes applied; nested mappings are merged.

    Examples:
        >>> overlay({"lr": 0.1, "method": {"width": 32}}, {"method": {"hidden": 64}})
        {'lr': 0.1, 'method': {'width': 32, 'hidden': 64}}
    """
    merged = dict(settings)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = overlay(merged[name], value) if both else value
    return merged
