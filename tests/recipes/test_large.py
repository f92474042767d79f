"""The settings that the commands of the large sets come to, against the papers' tables."""

import pytest

from longtail.methods import Method
from longtail.recipes import IMAGENET_LT, INATURALIST18, PLACES_LT
from longtail.settings import any_training, from_keywords, from_words, to_config
from longtail.training import Config
from longtail.training.optim import learning_rate
from longtail.training.stages import Stage

LARGE = [*IMAGENET_LT, *PLACES_LT, *INATURALIST18]

# Backbone, epochs, batch, rate, weight decay, schedule.
SCHEDULES = {
    ("imagenet-lt", "ce"): ("resnext50_32x4d", 90, 256, 0.2, 5e-4, "cosine"),
    ("imagenet-lt", "logit_adjust"): ("resnext50_32x4d", 90, 128, 0.05, 5e-4, "cosine"),
    ("imagenet-lt", "lade"): ("resnext50_32x4d", 180, 256, 0.05, 5e-4, "cosine"),
    ("imagenet-lt", "bcl"): ("resnext50_32x4d", 90, 256, 0.1, 5e-4, "cosine"),
    ("imagenet-lt", "gml"): ("resnext50_32x4d", 90, 128, 0.05, 5e-4, "cosine"),
    ("places-lt", "ce"): ("resnet152", 30, 128, 0.05, 5e-4, "step"),
    ("places-lt", "logit_adjust"): ("resnet152", 30, 128, 0.05, 5e-4, "step"),
    ("places-lt", "lade"): ("resnet152", 30, 128, 0.05, 5e-4, "step"),
    ("places-lt", "bcl"): ("resnet152", 30, 128, 0.05, 5e-4, "step"),
    ("places-lt", "gml"): ("resnet152", 30, 128, 0.05, 5e-4, "step"),
    ("inaturalist18", "ce"): ("resnet50", 200, 256, 0.1, 1e-4, "cosine"),
    ("inaturalist18", "logit_adjust"): ("resnet50", 100, 256, 0.2, 1e-4, "cosine"),
    ("inaturalist18", "lade"): ("resnet50", 200, 256, 0.1, 1e-4, "cosine"),
    ("inaturalist18", "bcl"): ("resnet50", 100, 256, 0.2, 1e-4, "cosine"),
    ("inaturalist18", "gml"): ("resnet50", 100, 128, 0.05, 1e-4, "cosine"),
}
LADE = {"imagenet-lt": (0.05, 0.5), "places-lt": (0.005, 0.1), "inaturalist18": (0.05, 0.5)}


def settings(source: str, method: str, *more: str) -> Config:
    words = [source, "--method", method, "--data.root", "images", *more]
    given = from_words("train", any_training, words)
    assert isinstance(given, dict)
    return to_config(from_keywords(**given))


def test_every_recipe_of_a_large_set_is_in_the_table():
    assert {(recipe.source, recipe.method) for recipe in LARGE} == set(SCHEDULES)


@pytest.mark.parametrize(("source", "method"), SCHEDULES)
def test_schedules(source, method):
    config = settings(source, method)
    assert (
        config.backbone,
        config.epochs,
        config.batch_size,
        config.lr,
        config.weight_decay,
        config.schedule,
    ) == SCHEDULES[source, method]
    assert (config.momentum, config.warmup, config.sampling) == (0.9, 0, "shuffle")
    assert config.data.root == "images"
    assert bool(config.pretrained) == (source == "places-lt")
    assert learning_rate(config, 0) == config.lr


def test_gml_on_imagenet_lt():
    config = settings("imagenet-lt", "gml")
    assert {key: config.method[key] for key in ("queue_size", "queue_base", "width", "hidden")} == {
        "queue_size": 16384,
        "queue_base": 3,
        "width": 1024,
        "hidden": 2048,
    }
    assert config.method["temperature"] == 0.07
    assert [config.method[key] for key in ("alpha", "beta", "gamma")] == [0, 1, 1]
    assert config.views == ["rand", "rand_stack", "rand_stack"]
    assert config.teacher == "train"
    stage = Stage.of(config, Method).config
    assert (stage.backbone, stage.views) == ("resnext101_32x8d", ["rand"])
    assert stage.method == {"name": "logit_adjust", "head": "cosine"}
    assert (stage.epochs, stage.batch_size, stage.lr) == (90, 128, 0.05)


@pytest.mark.parametrize("source", ["imagenet-lt", "inaturalist18"])
def test_bcl(source):
    config = settings(source, "bcl")
    assert config.method == {
        "name": "bcl",
        "classifier_weight": 1.0,
        "contrast_weight": 0.35,
        "temperature": 0.07,
        "hidden": 2048,
        "width": 1024,
    }
    assert config.views == ["rand", "sim", "sim"]


@pytest.mark.parametrize("source", LADE)
def test_lade(source):
    loss = settings(source, "lade").method["loss"]
    assert (loss["alpha"], loss["remine_lambda"], loss["prior_of"]) == (*LADE[source], "column")


@pytest.mark.parametrize("source", LADE)
def test_the_classifiers_of_hong_et_al_start_as_pytorch_does(source):
    for method in ("ce", "lade"):
        assert settings(source, method).method["head"] == "linear_default"


def test_expected_accuracies_say_where_they_are_from():
    expected = {(recipe.source, recipe.method): recipe.expected for recipe in LARGE}
    assert "57.8 with rand-rand" in expected["imagenet-lt", "bcl"]
    assert "best epoch" in expected["imagenet-lt", "bcl"]
    assert expected["places-lt", "logit_adjust"].startswith("38.6")
    assert [expected[source, "ce"].split(",")[0] for source in LADE] == ["43.1", "31.5", "65.0"]


def test_the_queue_has_room_for_every_class():
    method = settings("inaturalist18", "gml").method
    assert method["queue_size"] >= 8142 * method["queue_base"]


@pytest.mark.parametrize("recipe", LARGE, ids=lambda recipe: recipe.command)
def test_backbones_are_timms(recipe):
    timm = pytest.importorskip("timm")
    names = [recipe.settings["backbone"]]
    names += [
        stage["backbone"]
        for stage in [recipe.settings.get("teacher_stage", {})]
        if "backbone" in stage
    ]
    assert all(timm.is_model(name) for name in names)


def test_the_rate_follows_the_batch():
    assert learning_rate(settings("imagenet-lt", "gml", "--batch_size", "1024"), 0) == 0.4
    given = settings("imagenet-lt", "gml", "--batch_size", "1024", "--lr_batch", "1024")
    assert learning_rate(given, 0) == 0.05
    with pytest.raises(ValueError, match=r"lr_batch must be in \[1, 1000000\], got 0"):
        settings("imagenet-lt", "gml", "--lr_batch", "0")


def test_the_classifier_of_places_lt_learns_fifty_times_faster():
    config = settings("places-lt", "lade")
    assert (config.lr, config.backbone_lr) == (0.05, 0.02)
    assert [learning_rate(config, epoch) for epoch in (9.9, 10, 20)] == pytest.approx(
        [0.05, 0.005, 0.0005]
    )
