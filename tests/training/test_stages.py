"""Runs with a stage before: trained in the run's folder, or taken from another run."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import longtail
from longtail import ClassPrior, api
from longtail.cli import main
from longtail.losses import CrossEntropyLoss, LDAMLoss
from longtail.methods import Method, PlainClassifier
from longtail.models import Backbone, create_backbone
from longtail.settings import from_keywords, from_words, to_config
from longtail.training import Run
from longtail.training.stages import Stage, expressed_after, expressed_after_sampling
from longtail.training.unused import check_used

TAUGHT = {"teacher": "train"}
QUICK = {"epochs": 1, "batch_size": 64, "device": "cpu"}
RANDOM = "ignore:the backbone has random weights"
HEAD = {"tune": "head", "device": "cpu"}


def test_crt_trains_its_first_stage_and_keeps_the_backbone(tmp_path: Path) -> None:
    settings = {**QUICK, "sampling": "class_balanced", "first_stage": {"sampling": "shuffle"}}
    run = longtail.train("digits-lt", "crt", out=tmp_path / "a", **settings)
    first = Run(tmp_path / "a" / "first")
    assert first.config["method"] == {"name": "ce"}
    assert first.model_card()["expresses"] == "source"
    assert run.model_card()["expresses"] == "uniform"  # by the sampling
    before, after = first.model(), run.model()
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(after.backbone.state_dict()[name], value), name
    again = longtail.train(
        "digits-lt", "crt", out=tmp_path / "b", first=str(first.folder), **settings
    )
    assert torch.equal(again.predictions().logits, run.predictions().logits)


def test_tau_norm_needs_no_epoch_and_takes_none(tmp_path: Path) -> None:
    stage = {"first_stage": {"epochs": 1}}
    settings = {**QUICK, **stage, "epochs": 0}
    run = longtail.train("digits-lt", "tau_norm", out=tmp_path / "a", **settings)
    weight = run.model().head.weight.detach()
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    with pytest.raises(ValueError, match="has nothing to train: epochs must be 0, got 1"):
        longtail.train("digits-lt", "tau_norm", out=tmp_path / "b", **{**QUICK, **stage})
    assert not (tmp_path / "b").exists()


def test_the_sampling_of_no_epoch_changes_no_prior(tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 0, "sampling": "class_balanced", "first_stage": {"epochs": 1}}
    run = longtail.train("digits-lt", "tau_norm", out=tmp_path / "a", **settings)
    assert run.model_card()["expresses"] == "uniform"


def test_stages_that_cannot_be(tmp_path: Path) -> None:
    first = longtail.train("digits-lt", "ce", out=tmp_path / "first", **QUICK).folder
    for method, wrong, message in (
        (
            "tau_norm",
            {"epochs": 0, "first_stage": {"epochs": 0}},
            "first_stage: epochs must be 1 or more, got 0",
        ),
        ("ce", {"first": "runs/x"}, "method 'ce' has no first stage; remove --first"),
        (
            "ce",
            {"first_stage": {"epochs": 1}},
            "method 'ce' has no first stage; remove --first",
        ),
        ("crt", {"first_stage": {"epocs": 1}}, "first_stage: .*'epocs'"),
        ("gml", {"teacher_stage": {"epocs": 1}}, "teacher_stage: .*'epocs'"),
        (
            "gml",
            {**TAUGHT, "teacher_stage": {"batch_size": 999}},
            "^teacher_stage: batch_size must",
        ),
        ("gml", {**TAUGHT, "teacher_stage": {"mix_alpha": 0.0}}, "^teacher_stage: mix_alpha must"),
        ("gml", {**TAUGHT, "teacher_stage": {"views": "wake"}}, "^teacher_stage: .*'wake'"),
        ("crt", {"first_stage": {"epochs": "two"}}, "first_stage: epochs must be a whole number"),
        ("crt", {"first_stage": {"data": "digits-lt"}}, r"first_stage must hold .*\['data'\]"),
        (
            "crt",
            {"first_stage": {"backbone": "smallnet_wide"}},
            "first_stage.backbone must be the run's, 'smallnet', got 'smallnet_wide'",
        ),
        (
            "crt",
            {"first": str(first), "backbone": "smallnet_wide"},
            "backbone must be that of the first stage .*, 'smallnet', got 'smallnet_wide'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            longtail.train("digits-lt", method, out=tmp_path / "x", **{**QUICK, **wrong})
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("setting", ["teacher", "first", "start"])
def test_a_run_goes_on_with_the_model_that_it_was_started_with(
    setting: str, tmp_path: Path
) -> None:
    method = {"teacher": "gml", "first": "crt", "start": "ce"}[setting]
    earlier: Any = {"name": "logit_adjust", "head": "cosine"} if setting == "teacher" else "ce"
    given = longtail.train("digits-lt", earlier, out=tmp_path / "given", **QUICK).folder
    other = longtail.train("digits-lt", earlier, out=tmp_path / "other", seed=1, **QUICK).folder
    asked = {**QUICK, "epochs": 2, "out": tmp_path / "run"}
    run = longtail.train("digits-lt", method, **{setting: given, **asked})
    assert isinstance(run, Run)
    assert [*run.given_models] == [setting]
    whole = run.model().state_dict()
    away = given.rename(tmp_path / "away")  # an ended run does not need it
    assert longtail.train(None, out=run.folder, resume=True).metrics == run.metrics
    away.rename(given)

    def interrupt() -> None:
        """Leaves the run as if it had been killed after its first epoch."""
        for name in ("model.safetensors", "predictions.parquet", "metrics.json"):
            (run.folder / name).unlink()
        run.checkpoints.reject_last()

    interrupt()
    moved = given.rename(tmp_path / "moved")
    found = longtail.train("digits-lt", method, **{setting: moved, **asked}, resume=True)
    assert all(
        torch.equal(value, whole[name]) for name, value in found.model().state_dict().items()
    )
    interrupt()
    other.rename(given)
    for path in (given, tmp_path / "moved"):
        if path == moved:
            moved.rename(tmp_path / "gone")
            shutil.copytree(given, moved)
        with pytest.raises(ValueError, match=f"resumed with another model as {setting} than"):
            longtail.train("digits-lt", method, **{setting: path, **asked}, resume=True)
    (run.folder / "given_models.json").unlink()  # as of an older version, which compares paths
    with pytest.raises(ValueError, match=f"with other settings: {setting} was .*given"):
        longtail.train("digits-lt", method, **{setting: moved, **asked}, resume=True)


class Plain(PlainClassifier):
    """A user's method, with a head of torch."""

    name = "plain"

    def __init__(self, prior: ClassPrior, backbone: Backbone) -> None:
        super().__init__(prior, backbone, loss=CrossEntropyLoss(prior))
        self.model.head = torch.nn.Linear(backbone.num_features, prior.num_classes)


@pytest.mark.filterwarnings(RANDOM)
@pytest.mark.parametrize("stage", ["gml", "ldam", {"name": f"{__name__}.Plain"}])
@pytest.mark.parametrize("tune", ["head", "all"])
def test_a_first_stage_is_that_of_any_method(stage: Any, tune: str, tmp_path: Path) -> None:
    if isinstance(stage, dict) and tune == "head":
        tune = "norm"
    how = HEAD if tune == "head" else {**QUICK, "tune": tune}
    asked = {**how, "first_stage": {"method": stage, "epochs": 1}}
    run = longtail.train("digits-lt", "crt", out=tmp_path / "run", **asked)
    assert isinstance(run, Run)
    first = Run(run.folder / "first").model().backbone.state_dict()
    assert all(torch.equal(v, first[n]) for n, v in run.model().backbone.state_dict().items())


@pytest.mark.filterwarnings(RANDOM)
@pytest.mark.parametrize(
    ("start", "method", "head"),
    [("ce", "gml", "cosine"), ("mixture", "ce", "linear"), ("ldam", "ce", "linear")],
)
def test_a_start_has_the_head_of_the_method(
    start: str, method: str, head: str, tmp_path: Path
) -> None:
    how = {"method": "gml", **HEAD} if start == "mixture" else {"method": start, **QUICK}
    given = longtail.train("digits-lt", out=tmp_path / "given", **how).folder
    asked = {**QUICK, "teacher": "none"} if method == "gml" else QUICK
    with pytest.raises(ValueError, match=f"start must have the run's head, '{head}', got '"):
        longtail.train("digits-lt", method, start=given, out=tmp_path / "x", **asked)
    assert not (tmp_path / "x").exists()
    run = longtail.train(  # whose head is fitted, on the features of that backbone
        "digits-lt", "ce", start=given, out=tmp_path / "head", **HEAD
    )
    assert run.finished


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({}, "a.safetensors"),
        ({"backbone": "smallnet_wide"}, None),
        ({"backbone": "smallnet_wide", "start": "wide.safetensors"}, "wide.safetensors"),
    ],
)
def test_a_teacher_starts_from_the_model_of_the_run_if_it_has_its_backbone(
    stage: dict[str, Any], expected: str | None
) -> None:
    asked = {**TAUGHT, "start": "a.safetensors", "teacher_stage": stage}
    data = {"source": "digits-lt"}
    config = to_config(from_keywords(data=data, method="gml", backbone="smallnet", **asked))
    teacher = Stage.of(config, Method)
    assert teacher
    assert teacher.config.start == expected


@pytest.mark.filterwarnings(RANDOM)
def test_a_first_stage_may_have_any_head_that_is_not_rescaled(tmp_path: Path) -> None:
    mixture = longtail.train("digits-lt", "gml", out=tmp_path / "gml", **HEAD)
    run = longtail.train("digits-lt", "crt", first=mixture.folder, out=tmp_path / "crt", **QUICK)
    assert run.finished
    for method in ("lws", "tau_norm"):
        with pytest.raises(ValueError, match="must have a linear head, got MixtureClassifier"):
            longtail.train("digits-lt", method, first=mixture.folder, out=tmp_path / "x", **QUICK)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ({"name": "gml", "queue_size": 32}, {}, "queue_size: no effect on gml's head"),
        ("gml", {"teacher": "train"}, "teacher must be none for a head on features, .*got 'train'"),
        ({"name": "ce", "head": "cosine"}, {}, "method.head must be linear for a head"),
        ("ce", {"epochs": 7}, "epochs has no effect with tune head, got 7"),
        ("gml", {"views": "rand"}, r"views has no effect with tune head, got \['rand'\]"),
        ("ce", {"ema": 0.9}, "ema has no effect with tune head, got 0.9"),
    ],
)
@pytest.mark.filterwarnings(RANDOM)
def test_what_has_no_effect_on_a_head_on_features_is_refused(
    method: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        longtail.train("digits-lt", method, out=tmp_path / "x", **HEAD, **changes)
    assert not (tmp_path / "x").exists()


@pytest.mark.filterwarnings(RANDOM)
@pytest.mark.parametrize("method", ["gml", "ldam", "tau_norm"])
def test_settings_of_a_recipe_or_a_loss_are_no_obstacle_to_a_head_on_features(
    method: str, tmp_path: Path
) -> None:
    run = longtail.train("digits-lt", method, batch_size=2, out=tmp_path / "run", **HEAD)
    assert run.finished
    assert longtail.train(None, out=run.folder, resume=True).finished
    file = run.folder / "config.yaml"
    of_older_version = re.sub(r"\nlr: .*\n", "\nlr: 0.7\n", file.read_text())
    file.write_text(of_older_version)
    assert longtail.train(None, out=run.folder, resume=True).finished
    assert "lr: 0.7" in file.read_text()


@pytest.mark.filterwarnings(RANDOM)
def test_tau_norm_draws_no_images(tmp_path: Path) -> None:
    asked = {**HEAD, "sampling": "class_balanced"}
    run = longtail.train("digits-lt", "tau_norm", out=tmp_path / "run", **asked)
    assert run.model_card()["expresses"] == "uniform"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("ce", {"optimizer": "adamw", "momentum": 0.8}, "momentum has no effect with optimizer"),
        ("ce", {"lora_rank": 2}, "lora_rank has no effect without tune lora, got 2"),
        ("ce", {"mix_alpha": 0.3}, "mix_alpha has no effect without mix, got 0.3"),
        ("ce", {"minutes": 0.1}, "minutes has no effect without fine-tuning .*, got 0.1"),
    ],
)
def test_what_has_no_effect_with_other_settings_is_refused(
    method: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        longtail.train("digits-lt", method, out=tmp_path / "x", **QUICK, **changes)
    assert not (tmp_path / "x").exists()


def test_a_setting_may_have_its_effect_in_a_stage() -> None:
    words = "digits-lt --method crt --first-stage.mix mixup --mix-alpha 0.2"
    check_used(to_config(from_keywords(**from_words("train", api.train, words.split()))), {})


@pytest.mark.filterwarnings(RANDOM)
def test_the_settings_of_a_head_on_features_can_be_repeated(tmp_path: Path) -> None:
    run = longtail.train("digits-lt", "ce", out=tmp_path / "run", **HEAD)
    file = run.folder / "config.yaml"
    file.write_text(re.sub(r"\nlr: .*\n", "\nlr: 0.7\n", file.read_text()))
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize("tune", ["head", "norm"])
def test_random_weights_that_are_hardly_trained_are_named(tune: str, tmp_path: Path) -> None:
    asked = HEAD if tune == "head" else {**QUICK, "tune": tune}
    with pytest.warns(UserWarning, match=f"random weights, and tune {tune} trains few or none"):
        longtail.train("digits-lt", "ce", out=tmp_path / "run", **asked)


def test_several_teachers_teach_as_their_mean(tmp_path: Path) -> None:
    method = {"name": "logit_adjust", "head": "cosine"}
    folders = [
        longtail.train("digits-lt", method, out=tmp_path / f"{seed}", seed=seed, **QUICK).folder
        for seed in (0, 1)
    ]
    small = {**QUICK, "method": {"name": "gml", "queue_size": 64, "alpha": 1.0}}
    words = ["train", "digits-lt", "--method", "gml", "--method.queue-size", "64"]
    words += ["--method.alpha", "1", "--epochs", "1", "--batch-size", "64", "--device", "cpu"]
    words += ["--teacher", *map(str, folders), "--out", str(tmp_path / "typed")]
    assert main(words) == 0
    typed = Run(tmp_path / "typed")
    assert typed.config["teacher"] == [str(folder) for folder in folders]
    assert "teacher " + ", ".join(map(str, folders)) in (typed.folder / "report.html").read_text()
    runs = {
        name: longtail.train("digits-lt", out=tmp_path / name, teacher=teacher, **small)
        for name, teacher in {"both": folders, "one": folders[:1], "alone": folders[0]}.items()
    }
    logits = {name: run.predictions().logits for name, run in runs.items()}
    assert torch.equal(typed.predictions().logits, logits["both"])
    assert torch.equal(logits["one"], logits["alone"])
    assert not torch.equal(logits["both"], logits["alone"])
    again = longtail.train(
        "digits-lt", out=tmp_path / "both", resume=True, teacher=folders, **small
    )
    assert again.finished
    other = {**method, "head": "linear"}
    linear = longtail.train("digits-lt", other, out=tmp_path / "linear", **QUICK).folder
    rule = "teacher must be train, none, or one or more .*, each named once, got "
    for wrong, message in (
        (["train", "none"], rule + r"\['train', 'none'\]"),
        ([], rule + r"\[\]"),
        (None, rule + "None"),
        ([folders[0], folders[1], folders[0]], rule),
        ([folders[0], f"{folders[0]}/."], rule),
        ([folders[0], "no/run"], "no/run is not a run folder"),
        (
            [folders[0], linear],
            f"teacher {folders[0]}, {linear}: .* must have cosine heads .*, got "
            "CosineHead of 10 classes with scale 30, LinearHead",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            longtail.train("digits-lt", out=tmp_path / "x", teacher=wrong, **small)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match=r"--teacher must be given once, with all its values"):
        from_words("train", longtail.train, [*words, "--teacher", "b"])


def test_settings_of_a_stage_change_those_of_the_recipe() -> None:
    def stage(method: str, name: str, changes: dict) -> dict:
        return getattr(to_config(from_keywords("cifar100-lt", method, **{name: changes})), name)

    longer = {"epochs": 100}
    assert stage("gml", "teacher_stage", longer) == {"backbone": "resnet56", "epochs": 100}
    assert stage("crt", "first_stage", longer) == {"epochs": 100, "schedule": "step"}
    first = stage("supcon", "first_stage", {"lr": 0.2})
    assert (first["lr"], first["views"], first["method"]["hidden"]) == (0.2, "sim", 512)
    other = stage("supcon", "first_stage", {"method": "ce"})  # its settings are those of another
    assert (other["views"], other["method"]) == ("sim", {"name": "ce"})


def test_a_stage_has_the_views_and_the_mix_that_it_can_use() -> None:
    config = to_config(from_keywords("digits-lt", "gml", views=["shift", "weak", "weak"]))
    assert Stage.of(config, Method).config.views == ["shift"]
    config = to_config(from_keywords("digits-lt", "supcon", mix="mixup"))
    assert Stage.of(config, Method).config.mix == "none"


def test_mixing_needs_a_view_for_the_classifier_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mix must be none for method 'paco'.*got 'mixup'"):
        longtail.train("digits-lt", "paco", out=tmp_path / "a", mix="mixup", **QUICK)
    run = longtail.train("digits-lt", "ce", out=tmp_path / "b", mix="cutmix", **QUICK)
    plain = longtail.train("digits-lt", "ce", out=tmp_path / "c", **QUICK)
    assert run.history[0]["loss"] != plain.history[0]["loss"]


@pytest.mark.parametrize("expresses", ["source", "uniform", [0.5, 0.25, 0.25]])
@pytest.mark.parametrize("sampling", ["class_balanced", "square_root"])
def test_expressed_after_sampling_is_bayes(expresses: str | list[float], sampling: str) -> None:
    """Logits of a perfect model: log p(x | c) + log drawn - log of what the loss adds."""
    counts = torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64)
    prior = ClassPrior(counts.long().tolist())
    source = counts / counts.sum()
    drawn = {"class_balanced": torch.ones(3), "square_root": counts.sqrt()}[sampling].double()
    drawn = drawn / drawn.sum()
    said = {"source": source, "uniform": torch.full((3,), 1 / 3)}
    declared = said[expresses] if isinstance(expresses, str) else torch.tensor(expresses)
    added = source / declared.double()  # the loss adds its log, so that the rest expresses `said`
    truth = drawn / added
    got = expressed_after_sampling(expresses, prior, sampling)
    value = torch.full((3,), 1 / 3).double() if got == "uniform" else torch.tensor(got).double()
    torch.testing.assert_close(value, truth / truth.sum())


def test_deferred_weights_that_never_come_are_not_recorded(tmp_path: Path) -> None:
    """An epoch of four starts at 0.75 at the latest, of five at 0.8."""
    for epochs, prior in ((1, "source"), (5, None)):
        run = longtail.train(
            "digits-lt", "ldam", out=tmp_path / str(epochs), **{**QUICK, "epochs": epochs}
        )
        weighted = LDAMLoss(run.prior).expresses
        assert run.model_card()["expresses"] == (prior or weighted)
    loss = LDAMLoss(ClassPrior([9, 1]))
    method = PlainClassifier(
        ClassPrior([9, 1]), create_backbone("smallnet"), loss=loss, head="cosine"
    )
    assert [expressed_after(method, epochs) for epochs in (1, 4)] == ["source"] * 2
    assert [expressed_after(method, epochs) for epochs in (0, 5, 200)] == [loss.expresses] * 3
    loss.deferred = 0.5
    assert expressed_after(method, 2) == loss.expresses
