"""The recipes of CIFAR: the papers' settings, and their cost against what was measured."""

import json
from pathlib import Path

import pytest

from longtail.recipes.cifar_lt import SETTINGS, SPEED

STEP = Path(__file__).parents[2] / "results" / "step.json"
MEASURED = {
    row["method"].removesuffix("_features"): row["images_per_second"]
    for row in json.loads(STEP.read_text())["steps"]
}


# Batch, rate, weight decay, milestones, views: typed from the papers and the authors' code.
TWICE = [0.8, 0.8, 0.9, 0.9]  # to a hundredth at the first of the two
PAPERS = {
    "ce": (128, 0.1, 2e-4, TWICE, "weak"),
    "focal": (128, 0.1, 2e-4, TWICE, "weak"),
    "class_balanced": (128, 0.1, 2e-4, TWICE, "weak"),
    "ldam": (128, 0.1, 2e-4, TWICE, "weak"),
    "logit_adjust": (128, 0.1, 5e-4, [0.8, 0.9], "auto"),
    "lade": (256, 0.2, 5e-4, [0.6, 0.6, 0.8, 0.8], "weak"),
    "bcl": (256, 0.15, 5e-4, [0.8, 0.9], ["auto", "sim", "sim"]),
    "proco": (256, 0.3, 2e-4, [0.8, 0.9], ["auto", "sim", "sim"]),
    "paco": (128, 0.02, 5e-4, [0.8, 0.9], ["auto", "moco"]),
    "gml": (128, 0.1, 5e-4, [0.8, 0.9], "auto"),
}
HEADS = {
    "logit_adjust": {"head": "cosine"},
    "bcl": {"hidden": 512, "width": 128, "temperature": 0.1},
    "proco": {"hidden": 512, "width": 128, "temperature": 0.1, "head": "linear"},
    "paco": {"width": 64, "temperature": 0.05, "alpha": 0.05},
    "gml": {"queue_size": 4096, "queue_base": 2, "width": 32, "temperature": 0.1},
}


@pytest.mark.parametrize("method", PAPERS)
def test_settings_are_the_papers(method: str) -> None:
    found = SETTINGS[method]
    names = ("batch_size", "lr", "weight_decay", "milestones", "views")
    assert tuple(found[name] for name in names) == PAPERS[method]
    assert (found["epochs"], found["schedule"], found["warmup"]) == (200, "step", 0.025)
    expected = HEADS.get(method, {})
    assert {name: found.get("method", {})[name] for name in expected} == expected


def test_every_method_that_trains_is_in_the_table() -> None:
    assert set(SETTINGS) - set(PAPERS) == {"crt", "lws", "tau_norm", "supcon"}  # two stages


@pytest.mark.parametrize("method", sorted(set(SETTINGS) - {"gml", "crt", "lws", "tau_norm"}))
def test_costs_are_those_of_the_measured_step(method: str) -> None:
    assert SPEED.get(method, SPEED["ce"]) == pytest.approx(MEASURED[method], rel=0.1)


def test_the_cost_of_gml_is_that_of_student_and_teacher() -> None:
    # A ResNet-56 takes the time of 56 / 32 ResNet-32, for one view and one pass each.
    teacher = MEASURED["logit_adjust"] * 32 / 56
    together = 1 / (1 / MEASURED["gml"] + 1 / teacher)
    assert SPEED["gml"] == pytest.approx(together, rel=0.1)
