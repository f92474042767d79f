"""Weights in one file: the figure of the run again, other data refused, names found."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail.classification import CLASSIFICATION
from longtail.cli import main
from longtail.data import DataConfig, Dataset, load
from longtail.training import Run, weights
from longtail.training.model_file import save_weights
from longtail.weights import Weights, checksum, list_weights, write_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("weights") / "run"
    done = longtail.train("digits-lt", "logit_adjust", out=folder, epochs=3, device="cpu")
    assert isinstance(done, Run)
    return done


@pytest.fixture
def file(run: Run, tmp_path: Path) -> Path:
    return write_weights(run, tmp_path / "results/weights/digits-ours.safetensors")


def test_weights_give_the_accuracy_of_their_run(run: Run, file: Path) -> None:
    found = longtail.evaluate(file)
    assert found["accuracy"] == pytest.approx(run.metrics["accuracy"], abs=5e-4)
    assert found["nll"] == pytest.approx(run.metrics["nll"], rel=1e-2)  # of rounded weights
    assert found == pytest.approx(Weights(file).card["metrics"])
    assert {v.dtype for v in load_file(file).values() if v.ndim > 1} == {torch.float16}
    assert file.stat().st_size < (run.folder / "model.safetensors").stat().st_size


def test_weights_are_evaluated_for_any_prior(run: Run, file: Path) -> None:
    due = longtail.evaluate(run, "source")
    found = longtail.evaluate(file, "source")
    assert found["accuracy"] == pytest.approx(due["accuracy"], abs=3e-3)
    assert found["accuracy"] != longtail.evaluate(file)["accuracy"]


def test_weights_teach_and_are_a_first_stage_or_a_start(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"name": "logit_adjust", "head": "cosine"}
    cosine = longtail.train("digits-lt", method, out=tmp_path / "run", epochs=1, device="cpu")
    teacher = write_weights(cosine, tmp_path / "results/weights/digits-teacher.safetensors")
    monkeypatch.chdir(tmp_path)
    given = {"epochs": 1, "out": tmp_path / "gml", "device": "cpu"}
    student = longtail.train("digits-lt", "gml", teacher="digits-teacher", **given)
    assert student.config["teacher"] == "digits-teacher"
    assert not student.stages
    card = Weights(teacher).card
    names = [f"class {number}" for number in range(10)]
    save_weights(teacher, Weights(teacher).model(), {**card, "class_names": names})
    with pytest.raises(ValueError, match=r"digits-teacher.* must have the data's classes"):
        longtail.train("digits-lt", "gml", teacher=str(teacher), **given)
    retrained = longtail.train("digits-lt", "crt", first=file, **{**given, "out": tmp_path / "crt"})
    weights = retrained.model().backbone.state_dict()
    kept = Weights(file).model().backbone.state_dict()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)
    with pytest.raises(ValueError, match="start must not be given with first, whose backbone crt"):
        longtail.train("digits-lt", "crt", first=file, start=file, **given)
    begun = longtail.train(
        "digits-lt", "tau_norm", start=file, out=tmp_path / "begun", device="cpu",
        first_stage={"epochs": 1},
    )  # fmt: skip
    norms = begun.model().head.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(10))
    started = longtail.train(
        "digits-lt", "logit_adjust", start=file, **{**given, "out": tmp_path / "start", "lr": 0.0}
    )
    weights = dict(started.model().named_parameters())
    assert all(
        torch.equal(weights[name], p) for name, p in Weights(file).model().named_parameters()
    )
    with pytest.raises(
        ValueError, match=r"digits-teach is not a run folder.*did you mean 'digits-t"
    ):
        longtail.train("digits-lt", "gml", teacher="digits-teach", **given)
    with pytest.raises(ValueError, match=r"no such file: nothing.safetensors"):
        longtail.train("digits-lt", "gml", teacher="nothing.safetensors", **given)


@pytest.mark.parametrize("given", [{}, {"data": {"root": "data"}}, {"target_prior": "uniform"}])
def test_evaluating_mistyped_weights_names_the_nearest(given: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"lt-lade-10 is not a run.*did you mean 'cifar100-lt-lade-100'\?"
    ):
        longtail.evaluate("cifar100-lt-lade-10", **given)
    with pytest.raises(
        ValueError, match=r"runs/a-0\.1 is not a run folder, nor the name of weights$"
    ):
        longtail.evaluate("runs/a-0.1", **given)
    with pytest.raises(ValueError, match=r"weights must be one of .*, got 'runs/a-0\.1'$"):
        longtail.load("runs/a-0.1")


def test_other_data_are_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="was evaluated on other data than the test split"):
        longtail.evaluate(file, data={"source": "digits-lt", "seed": 5})


def test_a_file_names_no_folder_or_code_as_its_data(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "hostile.safetensors"
    card = {**run.model_card(), "data_settings": {"source": "os.abort"}, "checksum": "0"}
    save_weights(file, run.model(), card)
    with pytest.raises(ValueError, match="does not name a data set of longtail"):
        longtail.evaluate(file)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("data_settings", ["digits-lt"]), ("data_settings", {"source": []}), ("metrics", {"ece": []})],
)
def test_a_card_with_values_of_other_kinds_is_refused(
    entry: str, value: object, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "hostile.safetensors"
    save_weights(file, run.model(), {**run.model_card(), entry: value})
    with pytest.raises(ValueError, match=f"{entry} must be"):
        longtail.load(file)


def test_settings_of_the_data_are_checked(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "hostile.safetensors"
    settings = {"source": "digits-lt", "imbalance": "many"}
    save_weights(file, run.model(), {**run.model_card(), "data_settings": settings})
    with pytest.raises(ValueError, match="imbalance must be"):
        longtail.evaluate(file)


def test_no_weights_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "FOLDERS", (tmp_path,))
    assert main(["list", "weights"]) == 0
    assert capsys.readouterr().out == "no weights found\n"


def test_weights_have_names(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parents[2])
    assert "logit_adjust, smallnet, epochs 3, seed 0: " in list_weights()["digits-ours"]
    loaded = longtail.load("digits-ours")
    assert loaded.model()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape == (1, 10)
    assert main(["evaluate", "digits-ours"]) == 0
    assert "as recorded" in capsys.readouterr().out
    assert main(["list", "weights"]) == 0
    assert "digits-ours" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'digits-ours'"):
        longtail.load("digits-our")
    with pytest.raises(ValueError, match="no such file"):
        longtail.load("gone.safetensors")
    file.with_name("torn.safetensors").write_bytes(file.read_bytes()[:100])
    known = list_weights()
    assert known["torn"].startswith("cannot be used: ")
    assert "smallnet" in known["digits-ours"]


def test_of_weights_of_the_same_name_those_of_the_current_folder_are_used(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = tmp_path / "elsewhere/results/weights" / file.name
    twin.parent.mkdir(parents=True)
    shutil.copy(file, twin)
    own, folders = Path("results/weights"), weights.FOLDERS
    assert folders[-1] == own
    monkeypatch.setattr(weights, "FOLDERS", (file.parent, own))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert weights.find_file(file.stem).resolve() == twin


def test_weights_are_kept_though_the_data_have_moved(run: Run, tmp_path: Path) -> None:
    moved = Run(shutil.copytree(run.folder, tmp_path / "run"))
    text = (moved.folder / "config.yaml").read_text()
    assert "root: null" in text
    (moved.folder / "config.yaml").write_text(text.replace("root: null", "root: /gone", 1))
    seen: list[str | None] = []
    real = CLASSIFICATION.load

    def noted(config: DataConfig) -> Dataset:
        seen.append(config.root)
        return real(replace(config, root=None))  # which digits do not have

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLASSIFICATION, "load", noted)
        write_weights(moved, tmp_path / "a.safetensors", "here")
        write_weights(moved, tmp_path / "a.safetensors")
    assert seen == ["here", "/gone"]


def test_options_without_effect_are_refused(run: Run, file: Path) -> None:
    with pytest.raises(ValueError, match="split: no effect for weights"):
        longtail.evaluate(file, split="val")
    with pytest.raises(ValueError, match="data: no effect for"):
        longtail.evaluate(run, data={"root": "data"})


def test_the_checksum_is_of_images_and_labels(run: Run) -> None:
    dataset = load(DataConfig("digits-lt"))
    assert dataset.test is not None
    assert dataset.test.images is not None
    changed = dataset.test.images.clone()
    changed[0, 0, 0, 0] += 1
    others = [
        replace(dataset, test=replace(dataset.test, images=changed)),
        replace(dataset, test=replace(dataset.test, labels=dataset.test.labels.flip(0))),
    ]
    assert len({checksum(one) for one in [dataset, *others]}) == 3
    files = replace(dataset.test, images=None)
    paths = [f"{n % 3}/{n}.png" for n in range(len(files))]
    tops = ("/data/one", "/two", "/data/one/")
    changes = (paths, paths, [*paths[:-1], "0/other.png"])
    found = [
        checksum(replace(dataset, test=replace(files, paths=tuple(f"{top}/{p}" for p in names))))
        for top, names in zip(tops, changes, strict=True)
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list_weights()])
def test_published_weights_give_their_accuracy(name: str) -> None:
    if not (root := os.environ.get("LONGTAIL_DATA")):
        pytest.skip("LONGTAIL_DATA, the folder of the data files, is not set")
    recorded = longtail.load(name).card["metrics"]
    assert longtail.evaluate(name, data={"root": root}) == pytest.approx(recorded, abs=2e-3)
