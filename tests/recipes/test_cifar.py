"""What the recipes of CIFAR say of their cost, against what was measured."""

import json
from pathlib import Path

import pytest

from longtail.recipes.cifar_lt import SETTINGS, SPEED

STEP = Path(__file__).parents[2] / "results" / "step.json"
MEASURED = {
    row["method"].removesuffix("_features"): row["images_per_second"]
    for row in json.loads(STEP.read_text())["steps"]
}


@pytest.mark.parametrize("method", sorted(set(SETTINGS) - {"gml", "crt", "lws", "tau_norm"}))
def test_costs_are_those_of_the_measured_step(method: str) -> None:
    assert SPEED.get(method, SPEED["ce"]) == pytest.approx(MEASURED[method], rel=0.1)


def test_the_cost_of_gml_is_that_of_student_and_teacher() -> None:
    # A ResNet-56 takes the time of 56 / 32 ResNet-32, for one view and one pass each.
    teacher = MEASURED["logit_adjust"] * 32 / 56
    together = 1 / (1 / MEASURED["gml"] + 1 / teacher)
    assert SPEED["gml"] == pytest.approx(together, rel=0.1)
