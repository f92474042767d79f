"""Training on own images: the stages, what is decided, resuming, and what is said of bad input."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from longtail.cli import main
from longtail.data import DataConfig, load
from longtail.data.load import read_source
from longtail.data.tree import Tree
from longtail.models import Backbone, create_backbone
from longtail.pictures import resolve, train
from longtail.pictures.checks import after, before
from longtail.pictures.plan import fastest_of, make_plan, passes_per_image
from longtail.pictures.settings import fine_tuning
from longtail.pictures.train import Training
from longtail.settings import any_training, from_keywords, from_words, resumed, to_config
from longtail.sklearn import LongTailClassifier
from longtail.training import Config, Run
from longtail.training.frozen import frozen_features

COLOURS = {"red": 40, "green": 12, "blue": 5}


def make_folder(root: Path, counts: dict[str, int], tested: int = 4) -> Path:
    """Noisy images in which one channel is stronger."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for channel, (name, count) in enumerate(counts.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count if split == "train" else tested):
                levels = random.integers(0, 160, (40, 48, 3))
                levels[..., channel % 3] += random.integers(0, 90)
                Image.fromarray(levels.astype(np.uint8)).save(folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "birds", COLOURS)


def settings(folder: Path, **changes: object) -> Config:
    """A CPU, and images of 32 pixels, so that a test takes seconds."""
    config = Config(DataConfig(str(folder), image_size=32), {"name": "auto"}, device="cpu")
    return replace(config, precision="32-true", **changes)


def resolved(config: Config) -> Config:
    return resolve(config, read_source(config.data))


@pytest.fixture(scope="module")
def frozen(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "frozen"
    run = train(settings(folder, tune="head", method={"name": "logit_adjust"}), out)
    assert isinstance(run, Run)
    return run


def test_own_images_take_pretrained_weights_at_their_size(folder: Path) -> None:
    found = resolved(Config(DataConfig(str(folder)), {"name": "auto"}))
    assert (found.backbone, found.pretrained, found.data.image_size) == (
        "efficientnet_lite0",
        True,
        224,
    )


@pytest.mark.parametrize(
    "changes", [{"pretrained": False}, {"backbone": "resnet20"}], ids=["asked", "none there"]
)
def test_training_from_scratch(folder: Path, changes: dict[str, object]) -> None:
    found = resolved(replace(Config(DataConfig(str(folder)), {"name": "ce"}), **changes))
    assert (found.pretrained, found.data.image_size) == (False, None)


def test_small_pictures_and_data_sets_of_papers_stay_as_they_are(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    for name in ("a", "b"):
        (tiny / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (12, 12), (number, 0, 0)).save(tiny / name / f"{number}.png")
    images = read_source(DataConfig(str(tiny)))
    for source in (str(tiny), "digits-lt", "cifar100-lt"):
        found = resolve(Config(DataConfig(source), {"name": "ce"}), images)
        assert (found.backbone, found.pretrained) == ("auto", False)


@pytest.mark.parametrize("side", [96, 32], ids=["files", "small, in memory"])
def test_a_data_set_that_is_passed_as_an_object(
    side: int, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(DataConfig(str(folder), image_size=side))
    asked = (
        {"tune": "head"} if side > 64 else {"backbone": "smallnet", "epochs": 1, "batch_size": 16}
    )
    with caplog.at_level("INFO", "longtail"):
        run = longtail.train(data, "ce", device="cpu", out=tmp_path / "run", **asked)
    assert ("trained from scratch" in caplog.text) == (side == 32)
    assert run.config["pretrained"] == (side > 64)
    assert run.config["data"]["image_size"] == (side if side > 64 else None)
    assert run.config["backbone"] == ("efficientnet_lite0" if side > 64 else "smallnet")


def test_double_precision_on_image_files(folder: Path, tmp_path: Path) -> None:
    asked = {"pretrained": False, "backbone": "smallnet", "epochs": 1, "batch_size": 16}
    data = {"source": str(folder), "image_size": 72}
    run = longtail.train(
        data, "ce", precision="64-true", device="cpu", out=tmp_path / "run", **asked
    )
    assert run.predictions().logits.isfinite().all()


def test_the_head_is_that_of_the_estimator(folder: Path, frozen: Run) -> None:
    dataset = load(DataConfig(str(folder), image_size=32))
    features = frozen_features(dataset, create_backbone("efficientnet_lite0", pretrained=True))
    x, y = features["train"].numpy(), dataset.train.labels.numpy()
    estimator = LongTailClassifier("logit_adjust").fit(x, y)
    wanted = torch.from_numpy(estimator.decision_function(features["test"].numpy())).float()
    found = frozen.predictions().logits
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True),
        wanted - wanted.mean(1, keepdim=True),
        atol=1e-4,
        rtol=1e-4,
    )


def test_the_run_has_cross_entropy_beside_it(frozen: Run) -> None:
    assert [stage.folder.name for stage in frozen.stages] == ["ce"]
    assert frozen.folder.joinpath("ce", "metrics.json").is_file()
    assert frozen.metrics["balanced_accuracy"] > 0.5
    assert frozen.model_card()["head"] == "linear"


def test_cross_entropy_for_comparison_is_plain(folder: Path, tmp_path: Path) -> None:
    asked = {"tune": "head", "method": {"name": "ce"}, "sampling": "class_balanced"}
    run = train(settings(folder, **asked), tmp_path / "run")
    assert run.config["sampling"] == "class_balanced"
    assert Run(run.folder / "ce").config["sampling"] == "shuffle"


def own_backbone(*, pretrained: bool = False) -> Backbone:
    return create_backbone("efficientnet_lite0", pretrained=pretrained)


def own_backbone_without_weights() -> Backbone:
    return create_backbone("resnet20")


def test_a_backbone_of_the_users_own_says_whether_it_has_weights(folder: Path) -> None:
    for make, expected in ((own_backbone, True), (own_backbone_without_weights, False)):
        name = f"{make.__module__}.{make.__name__}"
        config = replace(Config(DataConfig(str(folder)), {"name": "ce"}), backbone=name)
        assert resolved(config).pretrained is expected


@pytest.mark.parametrize("device", ["cuda", "gpu", "abacus"])
def test_a_device_that_is_absent_is_refused_first(
    device: str, folder: Path, tmp_path: Path
) -> None:
    if device != "abacus" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=f"device '{device}' is not available"):
        train(settings(folder, tune="head", device=device), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predictions_of_paths_images_and_arrays(folder: Path, frozen: Run) -> None:
    paths = sorted((folder / "test").rglob("*.jpg"))
    found = frozen.predict(paths)
    assert [name for _, ((name, _),) in found.top(1)] == [
        frozen.predictions().class_names[c] for c in frozen.predictions().logits.argmax(1)
    ]
    images = [Image.open(path).convert("RGB") for path in paths]
    for given in (images, [np.asarray(image) for image in images]):
        torch.testing.assert_close(frozen.predict(given).logits, found.logits, atol=1e-3, rtol=1e-3)
    one = frozen.predict(np.asarray(images[3]))
    torch.testing.assert_close(one.logits, found.logits[3:4], atol=1e-3, rtol=1e-3)
    assert one.paths == ("image 0",)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "got none"),
        (np.zeros((4, 4, 3)), r"got \(4, 4, 3\) of float64"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\) of uint8"),
        (["a.jpg", np.zeros((4, 4, 3), np.uint8)], "all paths, or all PIL images and arrays"),
    ],
)
def test_what_cannot_be_predicted(images: object, message: str, frozen: Run) -> None:
    with pytest.raises(ValueError, match=message):
        frozen.predict(images)  # type: ignore[arg-type]


def test_the_commands(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = [str(folder), "--data.image-size", "32"]
    assert main(["train", *words, "--tune", "head", "--out", str(tmp_path / "run")]) == 0
    assert "balanced accuracy in cross-validation" in caplog.text
    assert (tmp_path / "run" / "report.html").is_file()
    assert main(["advise", *words]) == 0
    said = capsys.readouterr().out
    assert "class-balanced sampling" in said
    assert "Recommended: " in said
    assert f"longtail train {folder} --data.image-size 32 --method " in said


@pytest.mark.parametrize("method", ["lade", "gml", "crt", "lws", "tau_norm"])
def test_every_head_on_fixed_features(method: str, folder: Path, tmp_path: Path) -> None:
    config = settings(folder, tune="head", method={"name": method})
    config = replace(config, sampling="class_balanced" if method in ("crt", "lws") else "shuffle")
    run = train(config, tmp_path / method)
    assert run.metrics["balanced_accuracy"] > 0.5
    logits = run.predictions().logits
    dataset = load(DataConfig(str(folder), image_size=32))
    features = frozen_features(dataset, create_backbone("efficientnet_lite0", pretrained=True))
    with torch.no_grad():  # read again from the file
        torch.testing.assert_close(run.model().head(features["test"]), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["crt", "lws", "tau_norm"])
def test_two_stages_with_the_settings_of_the_command(
    method: str, folder: Path, tmp_path: Path
) -> None:
    data = {"source": str(folder), "image_size": 32}
    run = longtail.train(data, method, tune="head", out=tmp_path / "run", verbose=False)
    assert run.metrics["balanced_accuracy"] > 0.5


@pytest.mark.parametrize("tune", ["head", "auto"])
@pytest.mark.parametrize("method", ["bcl", "paco", "proco", "supcon"])
def test_a_method_that_needs_a_trained_backbone(
    method: str, tune: str, folder: Path, tmp_path: Path
) -> None:
    data = {"source": str(folder), "image_size": 32}
    with pytest.raises(ValueError, match="tune must be all, norm or lora for method '"):
        longtail.train(data, method, tune=tune, out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*reduce --lr")  # of an epoch on 57 images
@pytest.mark.parametrize(
    ("method", "changes", "steps"),
    [
        ("bcl", {}, ["head"]),
        ("paco", {"mix": "none"}, ["head"]),
        ("proco", {"views": ["weak", "weak", "weak"]}, ["head"]),
        ("supcon", {"sampling": "class_balanced"}, ["head", "first"]),
        ("crt", {}, ["head", "first"]),
        ("tau_norm", {}, ["head", "first"]),
        ("gml", {"method": {"queue_size": 64}, "teacher": "train"}, ["head", "teacher"]),
        ("logit_adjust", {"method": {"head": "cosine"}}, ["head"]),
    ],
)
def test_fine_tuning_is_that_of_the_method(
    method: str, changes: dict[str, Any], steps: list[str], folder: Path, tmp_path: Path
) -> None:
    data, out = {"source": str(folder), "image_size": 32}, tmp_path / "run"
    asked = {"tune": "all", "minutes": 1e-6, "batch_size": 16, "precision": "32-true", **changes}
    own = asked.pop("method", {})
    run = longtail.train(data, {"name": method, **own}, out=out, verbose=False, **asked)
    assert isinstance(run, Run)
    assert {"name": method, **own}.items() <= run.config["method"].items()
    assert run.config["tune"] == "all"
    assert all(Run(out / step).finished for step in ["ce", *steps])
    if "first" in steps:
        assert Run(out / "first").config["epochs"] == 1
    assert run.config["epochs"] == (0 if method == "tau_norm" else 1)
    backbone = create_backbone("efficientnet_lite0", pretrained=True).state_dict()
    tuned = run.model().backbone.state_dict()
    assert any(not torch.equal(tuned[name], value) for name, value in backbone.items())
    longtail.train(None, out=out, resume=True, verbose=False)  # with the same settings


@pytest.mark.filterwarnings("ignore:.*reduce --lr")
@pytest.mark.parametrize(
    ("method", "changes", "epochs"),
    [
        ("crt", {"first_stage": {"lr": 1e-4, "batch_size": 57}}, (1, 1)),
        ("tau_norm", {"epochs": 0}, (0, 1)),
        ("crt", {"epochs": 1, "first_stage": {"epochs": 2}}, (1, 2)),
    ],
)
def test_epochs_of_both_stages(
    method: str,
    changes: dict[str, Any],
    epochs: tuple[int, int],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, int]] = []

    def stop(training: Training, config: Config, *rest: object) -> Run:
        seen.append((config.epochs, config.first_stage.get("epochs", -1)))
        return frozen_run

    frozen_run = longtail.train(
        {"source": str(folder), "image_size": 32}, "ce", tune="head", out=tmp_path / "head"
    )
    monkeypatch.setattr(Training, "_train", stop)
    asked = {"tune": "all", "minutes": 1e-6, "batch_size": 16, "precision": "32-true", **changes}
    data = {"source": str(folder), "image_size": 32}
    longtail.train(data, method, out=tmp_path / "run", verbose=False, **asked)
    assert seen[-1] == epochs


@pytest.mark.filterwarnings("ignore:.*reduce --lr")
def test_a_given_model_may_move_and_must_stay_the_same(folder: Path, tmp_path: Path) -> None:
    data = {"source": str(folder), "image_size": 32}
    first, out = tmp_path / "first", tmp_path / "run"
    asked = {"tune": "head", "precision": "32-true", "verbose": False}
    longtail.train(data, "ce", out=first, **asked)
    run = longtail.train(data, "crt", first=first, out=out, **asked)
    before = run.metrics
    moved = first.rename(tmp_path / "moved")
    (out / "metrics.json").unlink()
    run = longtail.train(None, first=moved, out=out, resume=True, verbose=False)
    assert run.metrics == before
    assert longtail.train(None, out=out, resume=True, verbose=False).metrics == before
    with pytest.raises(ValueError, match=r"other settings: first was .*moved' and is 'train'"):
        longtail.train(None, first="train", out=out, resume=True, verbose=False)
    longtail.train(data, "logit_adjust", out=first, **asked)
    (out / "metrics.json").unlink()
    with pytest.raises(ValueError, match="resumed with another model as first than"):
        longtail.train(None, first=first, out=out, resume=True, verbose=False)


@pytest.mark.filterwarnings("ignore:.*reduce --lr")
@pytest.mark.parametrize("method", ["gml", "crt"])
def test_by_default_a_head_that_is_no_loss_is_fine_tuned_with_logit_adjustment(
    method: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(folder, method={"name": method}, epochs=1)
    if method == "crt":
        config = replace(config, sampling="class_balanced")
    with caplog.at_level("INFO", "longtail"):
        train(config, tmp_path / "run")
    assert "2. fine-tuning with logit_adjust, 1 epoch" in caplog.text
    stages = {name: Run(tmp_path / "run" / name).config["method"] for name in ("head", "trial")}
    assert stages == {"head": {"name": method}, "trial": {"name": "logit_adjust"}}
    sampling = {name: Run(tmp_path / "run" / name).config["sampling"] for name in ("head", "trial")}
    balanced = "class_balanced" if method == "crt" else "shuffle"
    assert sampling == {"head": balanced, "trial": "shuffle"}


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, 1),
        ({"sam": 0.05}, 2),
        ({"method": {"name": "gml"}}, 1),  # whose head is not fine-tuned
        ({"method": {"name": "bcl"}, "tune": "all"}, 3),
        ({"method": {"name": "crt"}, "tune": "norm", "sam": 0.05}, 4),
        ({"method": {"name": "gml"}, "tune": "all", "teacher": "train"}, 4),
        ({"method": {"name": "auto"}, "tune": "all"}, 1),
    ],
)
def test_the_plan_counts_every_pass(changes: dict[str, Any], factor: int, folder: Path) -> None:
    assert passes_per_image(settings(folder, **changes)) == factor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label_smoothing": 0.1, "tune": "head"},
            "label_smoothing must be 0 for tune head, whose solver has none",
        ),
        (
            {"label_smoothing": 0.1, "method": {"name": "lade"}},
            "label_smoothing must be 0 for LADELoss, got 0.1",
        ),
        ({"sam": 0.05, "tune": "head"}, "sam must be 0 for tune head, .*, got 0.05"),
        (
            {"momentum": 0.5, "given": ["momentum"]},
            "momentum has no effect with optimizer adamw, got 0.5",
        ),
        (
            {"method": {"name": "gml", "queue_size": 64}},
            "queue_size: no effect on gml's head",
        ),
        ({"method": {"name": "gml"}, "teacher": "train"}, "teacher must be none .* got 'train'"),
        (
            {"method": {"name": "ce", "head": "cosine"}, "tune": "head"},
            "method.head must be linear for a head on features, got 'cosine'",
        ),
        ({"teacher": "train"}, "method 'logit_adjust' does not take a teacher"),
        ({"method": {"name": "paco"}, "tune": "all", "mix": "cutmix"}, "mix must be none"),
    ],
    ids=["head", "lade", "sam", "momentum", "gml", "teacher", "cosine", "of auto", "mix"],
)
def test_settings_without_a_stage_for_them(
    changes: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(settings(folder, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_head_then_trial_then_decision(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(folder, method={"name": "logit_adjust"}, epochs=1, batch_size=16)
    config = replace(config, label_smoothing=0.1, sam=0.01)
    with caplog.at_level("INFO", "longtail"):
        run = train(config, tmp_path / "run")
    said = caplog.text
    assert "57 train, 12 test images, 3 classes of 40 to 5 training images (rarest: blue)" in said
    assert "fine-tuning with logit_adjust, 1 epoch: about" in said
    assert "validation split, balanced accuracy: head " in said
    stages = {path.parent.name for path in (tmp_path / "run").glob("*/config.yaml")}
    assert {"ce", "head", "trial"} <= stages
    trial = Run(tmp_path / "run" / "trial")
    assert trial.metrics["split"] == "val"  # the decision does not look at the test split
    assert trial.config["optimizer"] == "adamw"
    assert trial.config["label_smoothing"] == 0.1
    head = Run(tmp_path / "run" / "head").config
    assert (head["label_smoothing"], head["sam"], trial.config["sam"]) == (0.0, 0.0, 0.01)
    assert run.metrics["split"] == "test"
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="already holds a run"):
        train(config, tmp_path / "run")
    with pytest.raises(ValueError, match="other settings: epochs was 1 and is 2"):
        train(replace(config, epochs=2), tmp_path / "run", resume=True)


@pytest.mark.filterwarnings("ignore:.*reduce --lr")  # of an epoch on 57 images
@pytest.mark.parametrize("pays", [True, False])
def test_the_log_loss_decides_whether_fine_tuning_pays(
    pays: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.5, 0.4 if pays else 0.6])  # of the head, and fine-tuned

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
        assert len(logits) == len(labels) == 9
        return next(losses)

    monkeypatch.setattr(sys.modules["longtail.pictures.train"], "tempered_log_loss", loss)
    run = train(settings(folder, method={"name": "logit_adjust"}, epochs=1), tmp_path / "run")
    assert run.config["tune"] == ("all" if pays else "head")


DEFAULTS = {
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "step",
    "warmup": 0.025,
    "batch_size": 128,
    "fixed_norm": False,
    "epochs": 200,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_given_setting_is_kept_even_where_it_equals_a_default(name: str, folder: Path) -> None:
    value = DEFAULTS[name]
    words = [str(folder), f"--{name.replace('_', '-')}", str(value).lower()]
    typed = from_words("train", any_training, words)
    assert isinstance(typed, dict)
    for given in (typed, {"data": str(folder), name: value}):
        config = to_config(from_keywords(**given))
        assert getattr(fine_tuning(config, 7, 1000), name) == value
    found = fine_tuning(to_config(from_keywords(str(folder))), 7, 1000)
    assert all(getattr(found, other) != default for other, default in DEFAULTS.items())


def test_settings_left_open_stay_open_when_a_run_is_resumed(folder: Path, tmp_path: Path) -> None:
    source, out = {"source": str(folder), "image_size": 32}, tmp_path / "run"
    asked = {"device": "cpu", "precision": "32-true", "weight_decay": 5e-4, "minutes": 1e-6}
    longtail.train(source, "ce", out=out, verbose=False, **asked)
    decisions = json.loads((out / "decisions.json").read_text())
    del decisions["asked"]["sam"]  # as a version wrote it that did not have the setting
    (out / "decisions.json").write_text(json.dumps(decisions))
    before = (out / "decisions.json").read_bytes()
    longtail.train(None, out=out, resume=True, verbose=False)
    config = to_config(resumed(out, "auto", {}))
    assert (config.is_open("lr"), config.is_open("weight_decay")) == (True, False)
    with pytest.raises(ValueError, match=r"other settings: lr was None and is 0\.1"):
        longtail.train(None, out=out, resume=True, verbose=False, lr=0.1)
    assert (out / "decisions.json").read_bytes() == before


@pytest.mark.filterwarnings("ignore:.*reduce --lr")  # of 32 pixels, a view shows little
def test_norms_alone_are_tuned(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, tune="norm", method={"name": "ce"}, epochs=2, batch_size=16, ema=0.0)
    run = train(config, tmp_path / "run")
    assert isinstance(run, Run)
    before = create_backbone("efficientnet_lite0", pretrained=True).state_dict()
    after = run.model().backbone.state_dict()
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
    moved = run.folder.rename(tmp_path / "moved")  # with the head that it was started from
    assert train(config, moved, resume=True).metrics == Run(moved).metrics


def test_lora_of_a_backbone_without_its_layers(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"needs a transformer of timm.*EfficientNetLite has none$"
    ):
        train(settings(folder, tune="lora"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*reduce --lr")  # the weights are random
def test_lora_of_a_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    timm = pytest.importorskip("timm")
    make = timm.create_model

    def without_network(name: str, pretrained: bool = False, **rest: object) -> torch.nn.Module:
        """Weights that are the same each time, in place of those of the hub."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make(name, pretrained=False, **rest)

    monkeypatch.setattr(timm, "create_model", without_network)
    data = make_folder(tmp_path / "data", {"a": 6, "b": 6})
    config = settings(data, tune="lora", lora_rank=2, method={"name": "ce"}, epochs=2)
    config = replace(config, backbone="test_vit", batch_size=6, lr=0.01)
    config.data.image_size = 160
    run = train(config, tmp_path / "run")
    assert isinstance(run, Run)
    before = create_backbone("test_vit", pretrained=True).state_dict()
    after = run.model().backbone.state_dict()
    assert set(after) == set(before)  # merged into the weights
    changed = {name.split(".")[-2] for name, v in before.items() if not torch.equal(after[name], v)}
    assert changed == {"qkv", "proj", "fc1", "fc2"}
    torch.testing.assert_close(
        run.predict(sorted((data / "test").rglob("*.jpg"))).logits,
        run.predictions().logits,
        atol=1e-3,
        rtol=1e-3,
    )


def test_python_is_silent_unless_told_otherwise(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    source = {"source": str(folder), "image_size": 32}
    asked = {"tune": "head", "device": "cpu", "precision": "32-true"}
    longtail.train(source, "auto", out=tmp_path / "a", verbose=False, **asked)
    longtail.advise(source, verbose=False)
    assert capfd.readouterr() == ("", "")
    longtail.train(source, "auto", out=tmp_path / "b", **asked)
    assert "methods" in capfd.readouterr().err


def test_the_folder_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "data", {"a": 4, "b": 2})
    searched, search = [], Tree.__init__

    def counted(tree: Tree, root: Path) -> None:
        searched.append(root)
        search(tree, root)

    monkeypatch.setattr(Tree, "__init__", counted)
    train(replace(settings(folder, tune="head"), data=DataConfig(str(folder))), tmp_path / "run")
    assert searched == [folder]


@pytest.mark.parametrize(("given", "used"), [(None, 0.9), (0.0, 0.0), (0.5, 0.5)])
def test_average_of_the_weights(given: float | None, used: float, folder: Path) -> None:
    config = fine_tuning(settings(folder, ema=given), epochs=10, images=320)
    assert config.ema == pytest.approx(used)


def test_the_fastest_try_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 9.0, 10.0, 12.0, 20.0, 50.0])  # 9 s, 2 s, 30 s
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert fastest_of(3, lambda: None) == 2.0


@pytest.mark.parametrize("faster", ["32-true", "bf16-mixed"])
def test_the_faster_precision_of_the_processor_is_used(
    faster: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(*arguments: object) -> float:
        return 1.0 if arguments[-1] == faster else 2.0

    monkeypatch.setattr(sys.modules["longtail.training.train"], "has_bf16", lambda device: True)
    monkeypatch.setattr(sys.modules["longtail.pictures.plan"], "_epoch_seconds", seconds)
    dataset = load(DataConfig(str(folder), image_size=32))
    config = replace(resolved(settings(folder)), precision="auto")
    assert make_plan(config, dataset).precision == faster
    for given in ("32-true", "bf16-mixed"):
        assert make_plan(replace(config, precision=given), dataset).precision == given


@pytest.mark.filterwarnings("ignore:lr 0.1 with adamw is out of range")
def test_minutes_too_short_for_anything(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "longtail"):
        run = longtail.train(
            {"source": str(folder), "image_size": 32, "val_fraction": 0.1},
            {"name": "ce", "head": "cosine"},
            **{"minutes": 1e-6, "seed": 3, "precision": "32-true", "device": "cpu", "lr": 0.1},
            out=tmp_path / "run",
        )
    said = caplog.text
    assert run.finished
    assert "no fine-tuning: an epoch with its trial takes about " in said
    assert "more than the 1e-06 minutes of --minutes" in said
    again = "--data.image-size 32 --data.val-fraction 0.1 --method ce --method.head cosine"
    others = "--minutes 1 --lr 0.1 --seed 3 --precision 32-true --device cpu --out NEW_FOLDER"
    assert re.search(f"to fine-tune, about .*: longtail train {folder} {again} {others}", said)
    assert not (tmp_path / "run" / "trial").exists()


@pytest.mark.parametrize(
    "counts", [{"a": 60, "b": 3}, {"a": 9, "b": 1}, {"a": 1, "b": 1}], ids=["rare", "one", "two"]
)
def test_very_few_images(counts: dict[str, int], tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", counts)
    run = train(settings(data, tune="head"), tmp_path / "run")
    assert run.finished


def test_several_processes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="devices and nodes must be 1 for own images"):
        train(settings(folder, devices=2), tmp_path / "run")


def test_one_image_only(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("RGB", (48, 48)).save(tmp_path / "data" / "a" / "0.png")
    with pytest.raises(ValueError, match=r"sub-folder .* each class.*1 image in a"):
        train(settings(tmp_path / "data"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unreadable_image_is_named(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "train" / "red" / "3.jpg").write_bytes(b"no image")
    (data / "test" / "blue" / "1.jpg").write_bytes(b"")
    config = settings(data, tune="head", method={"name": "ce"})
    config.data.image_size = 72  # larger ones are read while the features are made
    with pytest.raises(ValueError, match=r"2 of 69(?s:.*)blue/1.jpg(?s:.*)red/3.jpg"):
        train(config, tmp_path / "run")


def test_a_run_that_stopped_before_its_first_stage_knows_its_images(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    data, out = shutil.copytree(folder, tmp_path / "data"), tmp_path / "run"
    words = ["train", str(data), "--data.image-size", "32", "--tune", "head", "--method", "ce"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["longtail.pictures.train"], "make_plan", stop)
        assert main([*words, "--device", "cpu", "--out", str(out)]) == 130
    assert "stopped before the first checkpoint" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["decisions.json", "split.csv"]
    new = data / "train" / "red" / "new.jpg"
    shutil.copy(data / "train" / "red" / "3.jpg", new)
    resume = ["train", "--resume", "--out", str(out)]
    assert main(["evaluate", str(out)]) == 2
    assert "has not reached its last stage: continue it with" in capsys.readouterr().err
    assert main(resume) == 2
    assert f"images added (1): {new}" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["decisions.json", "split.csv"]
    new.unlink()
    assert main(resume) == 0
    assert Run(out).finished


def test_what_is_said_before(folder: Path) -> None:
    dataset = load(DataConfig(str(folder), image_size=32))
    assert dataset.test is not None
    few = replace(dataset, test=dataset.test.take(torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9])))
    config = replace(settings(folder), pretrained=True, tune="all")
    assert "2 of 3 classes have 3 test images or fewer" in "".join(before(config, few))
    assert "lr 0.1 with sgd is out of range" in "".join(before(config, dataset))
    fine = replace(config, optimizer="adamw", lr=2e-4)
    assert not list(before(fine, dataset))
    assert "batch_size 64 is larger than the 57 training" in "".join(
        before(replace(fine, batch_size=64), dataset)
    )


def test_classes_without_an_image_to_measure_are_said_apart(folder: Path) -> None:
    dataset = load(DataConfig(str(folder), image_size=32))
    assert dataset.test is not None
    config = replace(settings(folder), tune="head")
    held = dataset.test.take(torch.tensor([0, 1, 4, 5, 6, 7]))  # two of blue, all of green
    for changes, split in (({"test": held}, "test"), ({"val": held, "test": None}, "val")):
        none, few = before(config, replace(dataset, **changes))
        assert f"1 of 3 classes have no {split} image (red): the balanced accuracy is " in none
        assert "of the other 2" in none
        assert f"1 of 3 classes have 3 {split} images or fewer (blue): " in few
    one = dataset.test.take(torch.tensor([4, 5, 6, 7]))
    (said,) = before(config, replace(dataset, val=one, test=None))
    assert "2 of 3 classes have no val image (blue, red)" in said
    assert "that of the only other one" in said
    assert not list(before(config, replace(dataset, test=None)))


def test_a_class_name_of_two_lines_is_said_in_one(folder: Path) -> None:
    dataset = load(DataConfig(str(folder), image_size=32))
    assert dataset.test is not None
    few = replace(
        dataset, class_names=("a\nb", "green", "red"), test=dataset.test.take(torch.arange(2, 12))
    )
    (said,) = before(replace(settings(folder), tune="head"), few)
    assert r"('a\nb')" in said
    assert said.isprintable()


@pytest.mark.parametrize("given", ["folder", "a Dataset"])
def test_what_is_said_where_training_starts_from_random_weights(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(tmp_path / "birds", {"red": 20, "green": 12, "blue": 5}, tested=2)
    source = load(DataConfig(str(data), image_size=16)) if given == "a Dataset" else data
    asked: dict[str, Any] = {"backbone": "smallnet", "epochs": 1, "batch_size": 16, "lr": 1e-9}
    asked |= {"device": "cpu", "precision": "32-true", "pretrained": False}
    with pytest.warns(UserWarning, match="or fewer|one class only") as warned:
        longtail.train(source, "ce", out=tmp_path / "run", verbose=False, **asked)
    said = [str(warning.message) for warning in warned]
    assert "3 of 3 classes have 3 test images or fewer (blue, green, red)" in said[0]
    assert "the model predicts one class only" in said[1]
    longtail.train(  # of a finished run, nothing is said again
        source, "ce", out=tmp_path / "run", verbose=False, resume=True, **asked
    )


def test_a_finished_run_is_not_planned_again(
    folder: Path, frozen: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*args: object) -> None:
        raise AssertionError("planned")

    monkeypatch.setattr(sys.modules["longtail.pictures.train"], "make_plan", plan)
    config = settings(folder, tune="head", method={"name": "logit_adjust"})
    out = shutil.copytree(frozen.folder, tmp_path / "run")
    assert train(config, out, resume=True).metrics == frozen.metrics
    with pytest.raises(ValueError, match="already holds a run"):
        train(config, out)
    with pytest.raises(ValueError, match="other settings: seed was 0 and is 1"):
        train(replace(config, seed=1), out, resume=True)
    (out / "metrics.json").unlink()
    with pytest.raises(AssertionError, match="planned"):
        train(config, out, resume=True)


def test_what_is_said_after(frozen: Run, tmp_path: Path) -> None:
    assert not list(after(frozen))
    run = Run(shutil.copytree(frozen.folder, tmp_path / "run"))
    run.log_epoch({"epoch": 0, "loss": 9.0})
    assert "the training loss ended at 9.00" in "".join(after(run))
    predictions = run.predictions()
    same = replace(predictions, logits=torch.tensor([[500.0, 0.0, 0.0]]).repeat(12, 1))
    same.write(run.folder / "predictions.parquet")
    said = "".join(after(run))
    assert "predicts one class only, 'blue'" in said
    assert "typically 500 nats above" in said
