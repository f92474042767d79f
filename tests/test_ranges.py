"""Numbers without sense are refused, wherever they are set."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from longtail import ClassPrior, losses, methods
from longtail.errors import InputError
from longtail.methods import Method
from longtail.models import create_backbone
from longtail.ranges import check_range

PRIOR = ClassPrior([9, 5, 2])


@pytest.mark.parametrize(
    ("value", "bounds", "rule"),
    [
        (2, {"least": 0, "below": 1}, "in [0, 1), got 2"),
        (0, {"above": 0, "most": 1}, "in (0, 1], got 0"),
        (-1.5, {"least": 0}, ">= 0, got -1.5"),
        (float("nan"), {"least": 0}, ">= 0 and finite, got nan"),
        (float("-inf"), {}, "finite, got -inf"),
        (10**20, {"most": 5}, "<= 5, got 100000000000000000000"),
        (10**20, {"least": 0}, ">= 0 and below 2^63, got 100000000000000000000"),
        (2.5, {"least": 0, "whole": True}, "a whole number, got 2.5"),
        ("1", {"least": 0}, "a number, got '1'"),
        ([1.0, 2.0], {"least": 0}, "a number, got [1.0, 2.0]"),
        (torch.ones(2), {"least": 0}, "a number, got tensor([1., 1.])"),
    ],
)
def test_message(value: Any, bounds: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError) as caught:
        check_range("x", value, **bounds)
    assert str(caught.value) == f"x must be {rule}"


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int8(0), torch.tensor(0.5)])
def test_numbers_of_any_kind_within(value: Any) -> None:
    check_range("x", value, least=0, below=1)


def made_with() -> Iterator[Any]:
    """Every number that a loss or a method of images takes, with a call that sets it."""
    backbone = create_backbone("smallnet")
    for module in (losses, methods):
        for name in module.__all__:
            made = getattr(module, name)
            if not isinstance(made, type) or inspect.isabstract(made):
                continue
            settings = inspect.signature(made).parameters
            given = {"prior": PRIOR, "backbone": backbone, "width": 4}
            fixed = {key: value for key, value in given.items() if key in settings}
            if issubclass(made, Method) and "backbone" not in settings:
                continue  # a second stage, which needs a first
            for setting, parameter in settings.items():
                for kind in ("float", "int"):
                    if kind in str(parameter.annotation):
                        call = _setter(made, fixed, setting)
                        yield pytest.param(call, kind, setting, id=f"{name}-{setting}")


def _setter(made: type, fixed: dict[str, Any], setting: str) -> Callable[[float], Any]:
    return lambda value: made(**{**fixed, setting: value})


@pytest.mark.parametrize(("call", "kind", "setting"), [*made_with()])
def test_settings_of_losses_and_methods(
    call: Callable[[float], Any], kind: str, setting: str
) -> None:
    absurd = {"float": [float("nan"), float("inf"), -1.0], "int": [-1, 0, 10**20]}
    for value in absurd[kind]:
        with pytest.raises(InputError, match=rf"{setting}.* must be "):
            call(value)
