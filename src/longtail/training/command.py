"""Settings as options of a command that a user can paste into a shell."""

import json
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

from longtail.data import DataConfig
from longtail.losses import ClassificationLoss
from longtail.methods import find_method
from longtail.training.config import STAGES

# Of data: named on its own, and decided anew by a run.
NOT_REPEATED = ("source", "check")


def options(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings as words of a command line; those that are None or empty are left out.

    Args:
        settings: nested mapping.
        prefix: prefix of the options, such as `data.`.

    Examples:
        >>> [*options({"lr": 0.1, "data": {"label_column": "kind of bird"}, "nesterov": True})]
        ['--lr', '0.1', '--data.label-column', 'kind of bird', '--nesterov', 'true']
        >>> [*options({"views": ["auto", "sim"], "first_stage": {"milestones": [0.5, 0.8]}})]
        ['--views', 'auto', 'sim', '--first-stage.milestones', '[0.5, 0.8]']
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from options(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            yield "--" + f"{prefix}{name}".replace("_", "-")
            one_word = prefix.startswith(STAGES)  # whose options have no type
            values = value if isinstance(value, list) and not one_word else [value]
            yield from (v if isinstance(v, str) else json.dumps(v) for v in values)


def data_options(data: Mapping[str, Any], *without: str) -> list[str]:
    """Settings of a data set that differ from their defaults, as words of a command line.

    Args:
        data: the settings.
        *without: names of settings to leave out.
    """
    left_out = {*NOT_REPEATED, *without}
    chosen = {name: value for name, value in data.items() if name not in left_out}
    return [*options(_differing(chosen, DataConfig), "data.")]


def method_options(method: Mapping[str, Any]) -> list[str]:
    """A method with its settings that differ from the defaults, as words of a command line.

    Examples:
        >>> method_options({"name": "gml", "queue_size": 64, "beta": 1.0})
        ['--method', 'gml', '--method.queue-size', '64']
        >>> method_options({"name": "auto"})
        []
    """
    name = method["name"]
    if name == "auto":
        return []
    found = find_method(name)
    others = {key: value for key, value in method.items() if key != "name"}
    if issubclass(found, ClassificationLoss):
        others["loss"] = _differing(others.get("loss") or {}, found)
        if others.get("head") == found.head:
            del others["head"]
    else:
        others = _differing(others, found)
    return ["--method", name, *options(others, "method.")]


def _differing(settings: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that are not the defaults of a function."""
    known = signature(function).parameters
    return {n: v for n, v in settings.items() if n not in known or v != known[n].default}
