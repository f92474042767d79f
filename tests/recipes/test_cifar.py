"""The recipes of CIFAR: the papers' settings, and their cost against what was measured."""

import json
from pathlib import Path

import pytest

from longtail.recipes import find_recipe
from longtail.recipes.cifar_lt import PUBLISHED, SETTINGS, SPEED, published
from longtail.reproduce import Cell
from longtail.settings import any_training, from_keywords, from_words, to_config
from longtail.training import Config
from longtail.training.optim import learning_rate

STEP = Path(__file__).parents[2] / "results" / "step.json"
MEASURED = {
    row["method"].removesuffix("_features"): row["images_per_second"]
    for row in json.loads(STEP.read_text())["steps"]
}


# Batch, rate, weight decay, milestones or another schedule, views: from papers and authors' code.
TWICE = [0.8, 0.8, 0.9, 0.9]  # to a hundredth at the first of the two
HONG = [119 / 200, 119 / 200, 159 / 200, 159 / 200]  # one epoch before 120 and 160, as their code
PAPERS = {
    "ce": (128, 0.1, 2e-4, TWICE, "weak"),
    "focal": (128, 0.1, 2e-4, TWICE, "weak"),
    "class_balanced": (128, 0.1, 2e-4, TWICE, "weak"),
    "ldam": (128, 0.1, 2e-4, TWICE, "weak"),
    "logit_adjust": (128, 0.1, 5e-4, [0.8, 0.9], "auto"),
    "dbm": (64, 0.1, 2e-4, "cosine", "auto"),
    "lade": (256, 0.2, 5e-4, HONG, "weak"),
    "bcl": (256, 0.15, 5e-4, [0.8, 0.9], ["auto", "sim", "sim"]),
    "proco": (256, 0.3, 2e-4, [0.8, 0.9], ["auto", "sim", "sim"]),
    "paco": (128, 0.02, 5e-4, [0.8, 0.9], ["auto", "moco"]),
    "gml": (128, 0.1, 5e-4, [0.8, 0.9], "auto"),
}
HEADS = {
    "focal": {"loss": {"gamma": 1.0}},
    "lade": {"head": "linear_default", "loss": {"alpha": 0.1, "remine_lambda": 0.01}},
    "logit_adjust": {"head": "cosine"},
    "dbm": {"loss": {"max_margin": 0.1}},
    "bcl": {"hidden": 512, "width": 128, "temperature": 0.1},
    "proco": {"hidden": 512, "width": 128, "temperature": 0.1, "head": "linear_default"},
    "paco": {"width": 64, "temperature": 0.05, "alpha": 0.05},
    "gml": {"queue_size": 4096, "queue_base": 2, "width": 32, "temperature": 0.1},
}


@pytest.mark.parametrize("method", PAPERS)
def test_settings_are_the_papers(method: str) -> None:
    found = SETTINGS[method]
    falls = found["milestones"] if found["schedule"] == "step" else found["schedule"]
    rates = (found["batch_size"], found["lr"], found["weight_decay"], falls, found["views"])
    assert rates == PAPERS[method]
    assert (found["epochs"], found["warmup"]) == (200, 0.025)
    expected = HEADS.get(method, {})
    assert {name: found.get("method", {})[name] for name in expected} == expected


def settings_of(*words: str) -> Config:
    given = from_words("train", any_training, words)
    assert isinstance(given, dict)
    return to_config(from_keywords(**given))


def lade(*words: str) -> Config:
    return settings_of("cifar100-lt", "--method", "lade", *words)


@pytest.mark.parametrize(("imbalance", "alpha"), [(100, 0.1), (50, 0.01), (10, 0.01), (20, 0.1)])
def test_alpha_of_lade_depends_on_the_imbalance(imbalance: int, alpha: float) -> None:
    for config in (
        lade("--data.imbalance", str(imbalance)),
        lade(f"--data.imbalance={imbalance}.0"),
        to_config(
            from_keywords({"source": "cifar10-lt", "imbalance": imbalance}, "lade", epochs=3)
        ),
        to_config(
            from_keywords(
                **Cell("cifar100-lt", "lade_common", imbalance, 0, 1.0, Path()).config(None)
            )
        ),
    ):
        assert config.method["loss"]["alpha"] == alpha
        assert config.method["loss"]["remine_lambda"] == 0.01
    assert lade("--data.imbalance", "50", "--method.loss.alpha", "1").method["loss"]["alpha"] == 1


def test_the_recipe_follows_the_imbalance_of_a_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data: {source: cifar100-lt, imbalance: 50}\nmethod: {name: lade}\n")
    config = settings_of("--config", str(file))
    assert config.method["loss"]["alpha"] == 0.01
    with pytest.raises(ValueError, match=r"data.imbalance.*many"):
        lade("--data.imbalance", "many")


def test_the_rate_of_lade_is_that_of_its_code() -> None:
    config = lade()
    assert learning_rate(config, 0) == pytest.approx(0.2 / 3)
    assert [learning_rate(config, epoch) for epoch in (2.5, 5, 118.9)] == pytest.approx(
        [0.2 * 2 / 3, 0.2, 0.2]
    )
    assert [learning_rate(config, epoch) for epoch in (119, 158.9, 159)] == pytest.approx(
        [2e-3, 2e-3, 2e-5]
    )
    with pytest.raises(ValueError, match=r"warmup_start must be in \[0, 1\], got 2"):
        lade("--warmup_start", "2")


def test_the_rows_of_lades_table_share_its_network_and_schedule() -> None:
    rows = {
        row: to_config(from_keywords(**Cell("cifar100-lt", row, 50, 0, 1.0, Path()).config(None)))
        for row in ("ce_branched", "logit_adjust_branched", "lade")
    }
    for name in ("backbone", "batch_size", "lr", "warmup_start", "milestones", "views"):
        assert len({str(getattr(config, name)) for config in rows.values()}) == 1, name
    assert {config.method["head"] for config in rows.values()} == {"linear_default"}
    common = Cell("cifar100-lt", "lade_common", 50, 0, 1.0, Path()).settings
    assert (common["backbone"], common["warmup_start"]) == ("resnet32", 0)
    assert common["method"] == {"head": "linear", "loss": {"alpha": 0.01, "remine_lambda": 0.01}}


def test_published_accuracies() -> None:
    hong = ("ce_branched", "pc_softmax_branched", "logit_adjust_branched", "lade")
    table = {
        imbalance: [published("cifar100-lt", row, imbalance, 200) for row in hong]
        for imbalance in (100, 50, 10)
    }
    assert table == {
        100: ["41.0", "45.3", "n/a", "45.4"],
        50: ["45.5", "49.5", "49.9", "50.5"],
        10: ["59.0", "61.2", "61.6", "61.7"],
    }
    best = [
        row
        for row in PUBLISHED["cifar100-lt"]
        if "best epoch" in published("cifar100-lt", row, 100, 200)
    ]
    assert best == ["ce", "dbm", "proco"]


def test_expected_accuracies_are_those_of_the_recipes_imbalance() -> None:
    expected = [find_recipe("cifar100-lt", "lade", i).expected for i in (None, 100, 50, 10)]
    assert [words.split()[0] for words in expected] == ["45.4", "45.4", "50.5", "61.7"]
    assert find_recipe("cifar100-lt", "lade", 50).command.endswith("--data.imbalance 50")


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


def test_a_method_without_a_recipe_trains_as_cross_entropy() -> None:
    for source, method in (("digits-lt", "focal"), ("cifar100-lt", "my_paper.Loss")):
        plain = {**find_recipe(source, "ce").settings}
        assert find_recipe(source, method).settings == plain
    crt = find_recipe("digits-lt", "crt").settings
    assert crt["views"] == "shift"
    assert (crt["epochs"], crt["first_stage"]) == (20, {"epochs": 100})
    assert find_recipe("birds/", "my_paper.Loss").settings == {}
