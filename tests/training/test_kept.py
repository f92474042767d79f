"""Nothing bad is kept as good, and a run that has not ended is used as of its last checkpoint."""

import csv
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from longtail import classification
from longtail.classification import CLASSIFICATION
from longtail.cli import main
from longtail.data import Dataset, load
from longtail.errors import InputError, NotFiniteError
from longtail.files import read_values
from longtail.models import merge_lora, tune_backbone
from longtail.settings import from_keywords, to_config
from longtail.tasks import train
from longtail.training import Config, Run
from longtail.training.interrupts import are_usable
from longtail.training.run import load_checkpoint

TRAIN = ["train", "digits-lt", "--method", "ce", "--precision", "32-true", "--device", "cpu"]
KEPT = ("model.safetensors", "predictions.parquet", "metrics.json")


def config_of(method: str = "ce", **changes: object) -> Config:
    return to_config(
        from_keywords(
            "digits-lt",
            method,
            **{"epochs": 2, "batch_size": 256, "precision": "32-true", "device": "cpu", **changes},
        )
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config_of(), tmp_path_factory.mktemp("runs") / "ce").folder


@pytest.fixture
def begun(ended: Path, tmp_path: Path) -> Path:
    """A run of two epochs that was killed after the first."""
    folder = tmp_path / "begun"
    shutil.copytree(ended, folder)
    for name in KEPT:
        (folder / name).unlink()
    Run(folder).checkpoints.reject_last()
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(3):
        noise = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def test_a_step_that_was_too_long_leaves_no_checkpoint_and_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAIN, "--epochs", "1", "--batch-size", "411", "--lr", "1e12", "--warmup", "0"]
    words += ["--out", str(tmp_path / "run")]
    assert len(load(config_of().data).train) == 411  # one step
    for more in ([], ["--resume"]):
        assert main([*words, *more]) == 1
        said = capsys.readouterr().err
        assert "NaN or infinite logits" in said
        assert "largest weight" in said
        assert "smaller lr" in said
        assert not list((tmp_path / "run" / "checkpoints").glob("*.pt"))
        assert not any((tmp_path / "run" / name).exists() for name in KEPT)


def let_the_end_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the model of every training give NaN for one image, at the end alone."""
    real = classification._predict_split

    def predict(*args: Any) -> dict[str, torch.Tensor]:
        rows = real(*args)
        if rows:
            rows["logits"][-1] = torch.nan
        return rows

    monkeypatch.setattr(classification, "_predict_split", predict)


def test_the_end_looks_at_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        let_the_end_burst(patched)
        for _ in range(2):  # a resume finds the same, and leaves the same
            with pytest.raises(NotFiniteError, match=r"logits.*test split.*epoch-000001.*lr"):
                train(config_of(), run, resume=True)
            assert [file.name[:12] for file in Run(run).checkpoints.files()] == ["epoch-000001"]
            assert not any((run / name).exists() for name in KEPT)
    assert train(config_of(), run, resume=True).finished  # from the last good checkpoint


def test_without_an_evaluation_split_training_images_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(epochs=1)
    data: Dataset = CLASSIFICATION.load(config.data)
    alone = replace(data, val=None, test=None)
    run = train(config, tmp_path / "good", dataset=alone)
    assert run.finished
    assert run.metrics == {"selection": "last epoch"}
    let_the_end_burst(monkeypatch)
    with pytest.raises(NotFiniteError, match="train split"):
        train(config, tmp_path / "bad", dataset=alone)


def test_a_stage_is_looked_at_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits-lt", "--method", "crt", "--epochs", "1", "--batch-size", "411"]
    words += ["--first_stage.epochs", "1", "--first_stage.lr", "1e12", "--first_stage.warmup", "0"]
    words += ["--precision", "32-true", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "NaN or infinite logits" in capsys.readouterr().err
    assert not (tmp_path / "run" / "first" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "content",
    ["{}", "", "{", "[]", '{"accuracy": 0.5}', '{"selection": "last epoch", "brier": null}'],
)
def test_metrics_without_their_contents_are_no_end(
    ended: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "metrics.json").write_text(content)
    assert not Run(folder).finished
    resumed = train(config_of(), folder, resume=True)
    assert resumed.finished
    assert resumed.metrics == Run(ended).metrics


def test_metrics_beside_a_missing_model_are_no_end(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "model.safetensors").unlink()
    assert not Run(folder).finished
    resumed = train(config_of(), folder, resume=True)
    assert torch.equal(resumed.predictions().logits, Run(ended).predictions().logits)


@pytest.mark.filterwarnings("default")
def test_predict_and_evaluate_use_the_last_checkpoint_and_say_so(
    begun: Path, ended: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.csv"
    assert main(["predict", str(begun), str(images), "--out", str(out)]) == 0
    assert re.search(
        r"has not ended.*last checkpoint, after 1 of 2 epochs", capsys.readouterr().err
    )
    assert len(list(csv.DictReader(out.read_text().splitlines()))) == 3
    assert main(["evaluate", str(begun), "--json"]) == 0
    shown = capsys.readouterr()
    assert "after 1 of 2 epochs" in shown.err
    # What the run of one epoch ends with.
    short = train(config_of(epochs=1, warmup=0.05, milestones=[]), tmp_path / "short")
    assert json.loads(shown.out).keys() == {*short.metrics} - {"split", "selection"}
    assert main(["evaluate", str(begun), "--target-prior", "uniform"]) == 0


def test_the_last_checkpoint_of_a_whole_training_gives_its_predictions(
    ended: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "metrics.json").unlink()
    with pytest.warns(UserWarning, match="after 2 of 2 epochs"):
        metrics = CLASSIFICATION.evaluate(Run(folder))
    assert metrics == pytest.approx(
        {name: Run(ended).metrics[name] for name in metrics}, abs=1e-4, nan_ok=True
    )


@pytest.mark.parametrize(
    "method", ["logit_adjust", "gml", "bcl", "paco", "proco", "supcon_features", "crt", "lws"]
)
def test_of_an_average_the_average_is_used(method: str, tmp_path: Path) -> None:
    stage = {"first_stage": {"epochs": 1}} if method in ("crt", "lws") else {}
    run = train(config_of(method, ema=0.9, **stage), tmp_path / "run")
    before = run.predictions().logits
    kept = run.model().state_dict()
    (run.folder / "metrics.json").unlink()
    with pytest.warns(UserWarning, match="last checkpoint"):
        model = Run(run.folder).latest().model()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert torch.isfinite(before).all()
    state = run.checkpoints.load_last()
    assert state is not None
    raw = state["method"]
    changed = {
        n for n, _ in model.named_parameters() if not torch.equal(raw[f"model.{n}"], kept[n])
    }
    assert "head.weight" in changed
    assert ("backbone.convs.0.weight" in changed) == (method not in ("crt", "lws"))


def test_the_average_of_a_rescaled_head_is_of_its_factors(tmp_path: Path) -> None:
    run = train(config_of("lws", ema=0.9, first_stage={"epochs": 1}), tmp_path / "run")
    state = run.checkpoints.load_last()
    assert state is not None
    first, head = state["method"]["first_head.weight"], run.model().head.weight
    factors = (head / first)[:, 0]
    torch.testing.assert_close(head, first * factors[:, None])
    assert not torch.allclose(factors, state["method"]["factor"])


def test_lora_of_a_checkpoint_is_merged() -> None:
    pytest.importorskip("peft")
    from longtail.models import ImageClassifier, create_backbone, create_head

    def make() -> ImageClassifier:
        backbone = create_backbone("vit_tiny_patch16_224")
        return ImageClassifier(backbone, create_head("linear", backbone.num_features, 3)).eval()

    trained = make()
    tune_backbone(trained.backbone, "lora", 2)
    with torch.no_grad():
        for name, value in trained.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.1)
    state = {"method": {f"model.{name}": v.clone() for name, v in trained.state_dict().items()}}
    merge_lora(trained.backbone)
    found = make()
    load_checkpoint(found, state, {"tune": "lora", "lora_rank": 2})
    wanted = trained.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, wanted[name])


@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "teacher", "embed"])
def test_what_has_no_checkpoint_or_must_have_ended_is_refused(
    begun: Path, images: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "predict": ["predict", str(begun), str(images), "--out", str(tmp_path / "x.csv")],
        "evaluate": ["evaluate", str(begun)],
        "export": ["export", str(begun)],
        "embed": ["embed", "digits-lt", "--backbone", str(begun), "--out", f"{tmp_path}/x.parquet"],
        "teacher": [
            *("train", "digits-lt", "--method", "gml", "--teacher", str(begun)),
            *("--out", str(tmp_path / "new")),
        ],
    }
    if command in ("predict", "evaluate"):
        shutil.rmtree(begun / "checkpoints")
    assert main(words[command]) == 2
    assert "training has not ended" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_reading_a_run_that_is_trained_changes_nothing(begun: Path) -> None:
    run = Run(begun)
    torn = begun / "checkpoints" / "epoch-000009-000000-0123456789abcdef.pt"
    torn.write_bytes(b"torn")
    before = sorted(file.name for file in begun.rglob("*"))
    with pytest.warns(UserWarning, match=r"corrupt|last checkpoint"):
        assert run.latest().model_card()["backbone"] == "smallnet"
    assert sorted(file.name for file in begun.rglob("*")) == before


def test_a_card_beside_checkpoints_is_checked(begun: Path) -> None:
    card = json.loads((begun / "card.json").read_text())
    for wrong, message in (
        ({"backbone": "os.abort"}, r"card\.json names the backbone 'os\.abort'"),
        ({"expresses": "/etc/passwd"}, r"card\.json is not valid: expresses"),
        ({"image_size": 10**9}, r"card\.json is not valid: image_size"),
    ):
        (begun / "card.json").write_text(json.dumps({**card, **wrong}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(InputError, match=message):
                Run(begun).latest().model()


def test_the_data_of_a_run_that_has_not_ended_name_no_code(begun: Path) -> None:
    text = (begun / "config.yaml").read_text().replace("source: digits-lt", "source: os.abort")
    (begun / "config.yaml").write_text(text)
    with (
        pytest.warns(UserWarning, match="last checkpoint"),
        pytest.raises(InputError, match=r"config\.yaml names the source 'os\.abort'.*--trust"),
    ):
        CLASSIFICATION.evaluate(Run(begun))


def test_data_that_have_changed_are_not_evaluated_on(begun: Path) -> None:
    lines = (begun / "split.csv").read_text().splitlines(keepends=True)
    (begun / "split.csv").write_text("".join(lines[:-1]))
    with (
        pytest.warns(UserWarning, match="last checkpoint"),
        pytest.raises(InputError, match="cannot be evaluated, its data have changed"),
    ):
        CLASSIFICATION.evaluate(Run(begun))


@pytest.mark.parametrize("data", ["x", None, {"root": 1}, {"source": "digits-lt", "seed": "x"}])
def test_settings_of_data_that_are_none(begun: Path, data: object) -> None:
    settings = {**read_values(begun / "config.yaml"), "data": data}
    (begun / "config.yaml").write_text(yaml.safe_dump(settings))
    with (
        pytest.warns(UserWarning, match="last checkpoint"),
        pytest.raises(InputError, match=r"seed|no valid settings of data"),
    ):
        CLASSIFICATION.evaluate(Run(begun))


def test_rows_of_logits_that_give_probabilities() -> None:
    inf = torch.inf
    assert are_usable(torch.tensor([[1.0, -inf], [0.0, 2.0]]))
    for row in ([inf, 0.0], [-inf, -inf], [torch.nan, 0.0]):
        assert not are_usable(torch.tensor([[0.0, 0.0], row]))
    assert are_usable(torch.zeros(2, 3, 4, 4))
