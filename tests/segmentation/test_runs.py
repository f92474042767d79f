"""Whole runs on made-up scenes: train, stop and go on, evaluate, predict, report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longtail import api
from longtail.cli import main
from longtail.data import UnreadableImagesError
from longtail.segmentation import PixelConfig, PixelDataConfig, PixelRun, SmallUNet, load_pixels
from longtail.tasks import train
from longtail.training import loop

MakeScenes = Callable[..., Path]
BCL = {"name": "bcl"}
NO_SAMPLES = {"name": "bcl", "samples": 0}
TAUGHT = {"method": "gml", "teacher": "train"}


def tiny_unet() -> SmallUNet:
    return SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.segmentation.tiny_unet", tiny_unet, raising=False)


def settings(root: Path, method: str = "gml", **more: Any) -> PixelConfig:
    config: dict[str, Any] = {
        "backbone": "longtail.segmentation.tiny_unet",
        "epochs": 2,
        "batch_size": 4,
        "crop": [24, 24],
        "views": "strong",
        "precision": "32-true",
        **more,
    }
    given = {"queue_size": 64, "queue_base": 4} if method == "gml" else {}
    return PixelConfig(
        data=PixelDataConfig(str(root)),
        method={"name": method, **given, **more.pop("m", {})},
        **config,
    )


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    make_scenes: MakeScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_scenes()
    whole = train(settings(root), tmp_path / "whole")
    train_step, steps = loop.train_step, 0

    def killed(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:  # in the second of two epochs of three steps
            raise Killed
        return train_step(*args)

    monkeypatch.setattr(loop, "train_step", killed)
    with pytest.raises(Killed):
        train(settings(root), tmp_path / "killed")
    mask = Path(load_pixels(PixelDataConfig(str(root))).train.masks[3])
    content = mask.read_bytes()
    with Image.open(mask) as picture:
        Image.fromarray(np.asarray(picture)[::-1].copy()).save(mask)
    with pytest.raises(ValueError, match=rf"files have changed \(1\): .*{mask.stem}"):
        train(settings(root), tmp_path / "killed", resume=True)
    mask.write_bytes(content)  # a copy has another time
    again = train(settings(root), tmp_path / "killed", resume=True)
    ours, theirs = (run.model().state_dict() for run in (again, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert torch.equal(again.confusion(), whole.confusion())
    assert [r["loss"] for r in again.history] == [r["loss"] for r in whole.history]
    with pytest.raises(ValueError, match="already holds a run"):
        train(settings(root), tmp_path / "whole")
    with pytest.raises(ValueError, match="epochs was 2 and is 3"):
        train(settings(root, epochs=3), tmp_path / "whole", resume=True)


def test_from_files_as_from_memory(
    make_scenes: MakeScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_scenes()
    in_memory = train(settings(root, "ce"), tmp_path / "memory")
    monkeypatch.setattr("longtail.segmentation.dataset.IN_MEMORY_BYTES", 0)
    config = settings(root, "ce")
    config.data.workers = 0
    dataset = load_pixels(config.data)
    assert dataset.train.images is None
    judged = api.evaluate(in_memory, split="test")
    assert judged == {k: v for k, v in in_memory.metrics.items() if k in judged}
    run = train(config, tmp_path / "files", dataset=dataset)
    assert run.finished
    with pytest.raises(ValueError, match="crop must be given if images are read from files"):
        train(settings(root, "ce", crop=None), tmp_path / "none", dataset=dataset)
    assert not (tmp_path / "none").exists()


def test_with_a_teacher(make_scenes: MakeScenes, tmp_path: Path) -> None:
    config = settings(make_scenes(), epochs=1, teacher="train", teacher_stage={"epochs": 1})
    run = train(config, tmp_path / "run")
    assert PixelRun(run.folder / "teacher").config["method"] == {"name": "logit_adjust"}
    bcl = settings(make_scenes("c"), epochs=1, teacher="train", teacher_stage={"method": BCL})
    assert train(bcl, tmp_path / "bcl").finished  # its head is its own method's
    with pytest.raises(ValueError, match="'ce' does not take a teacher"):
        train(settings(make_scenes("b"), "ce", teacher="train"), tmp_path / "ce")


def test_a_model_says_which_prior_was_drawn(make_scenes: MakeScenes, tmp_path: Path) -> None:
    config = settings(make_scenes(), "ce", epochs=1, sampling="class_balanced")
    run = train(config, tmp_path / "run")
    drawn, _ = load_pixels(config.data).priors_as_drawn("class_balanced")
    assert run.model_card()["expresses"] == drawn.probabilities.tolist()
    assert run.prior == load_pixels(config.data).prior
    plain = {key: run.metrics[key] for key in ("miou", "macc")}
    assert api.evaluate(run, "source") != plain


def test_the_commands(
    make_scenes: MakeScenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder = make_scenes(sizes={"train": 8, "val": 2, "test": 3}), tmp_path / "run"
    words = [str(root), "--task", "segmentation", "--method", "gml", "--method.queue_size=64"]
    words += ["--method.queue_base", "4", "--epochs=1", "--batch_size=4", "--crop", "24", "24"]
    words += ["--backbone", "longtail.segmentation.tiny_unet", "--out", str(folder)]
    assert main(["train", *words]) == 0
    assert "mIoU" in capsys.readouterr().out
    assert (folder / "report.html").is_file()
    trust = ["--trust", "longtail.segmentation.tiny_unet"]  # which other commands read in a file
    again = ["train", "--config", str(folder / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main([*again, *trust]) == 0
    first = PixelRun(folder)
    assert first.metrics == PixelRun(tmp_path / "again").metrics
    capsys.readouterr()

    def judged(*options: str) -> dict[str, float]:
        assert main(["evaluate", str(folder), "--json", *options, *trust]) == 0
        found: dict[str, float] = json.loads(capsys.readouterr().out)
        return found

    plain = judged()
    assert plain == {key: first.metrics[key] for key in plain}
    assert judged("--target-prior", "uniform") == plain  # what the model expresses
    assert judged("--target-prior", "source") != plain
    assert judged("--split", "val") != plain
    assert judged("--flip", "--window", "24", "24") != plain
    assert main(["evaluate", str(folder), "--window", "24", "8", *trust]) == 2
    assert "window must be a height and a width from 16" in capsys.readouterr().err

    out = tmp_path / "masks"
    to_masks = ["predict", str(folder), str(root / "images"), "--out", str(out), *trust]
    assert main([*to_masks, "--flip", "--window", "24", "24"]) == 0
    flipped = (out / "test" / "000.png").read_bytes()
    assert main(to_masks) == 0
    assert (out / "test" / "000.png").read_bytes() != flipped
    with Image.open(out / "test" / "000.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (48, 32)
        assert set(np.unique(np.array(mask))) <= {0, 1, 2, 3}
    with Image.open(out / "test" / "000-overlay.png") as overlay:
        assert overlay.width == 48
        assert overlay.height > 32 + 10  # the legend
    assert (out / "classes.txt").read_text(encoding="utf-8").split() == [
        "ground",
        "sky",
        "box",
        "pole",
    ]

    page = tmp_path / "page.html"
    assert main(["report", str(folder), str(tmp_path / "again"), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for words_in_it in (
        "IoU against pixel share",
        "Truth and prediction",
        "data:image/png",
        "pole",
    ):
        assert words_in_it in text
    assert "<script" not in text

    capsys.readouterr()
    assert main(["export", str(folder), *trust]) == 2
    assert "not a run of whole images, got 'onnx'" in capsys.readouterr().err
    weights = ["--to", "safetensors", "--out", str(tmp_path / "w.safetensors")]
    assert main(["export", str(folder), *weights, *trust]) == 0
    embed = ["--backbone", str(folder), "--out", str(tmp_path / "e.parquet")]
    assert main(["embed", "digits", *embed]) == 2
    assert "must hold a run of classification, got one of segmentation" in capsys.readouterr().err
    assert main(["protocol", str(folder)]) == 2
    assert "must hold a run of classification, got one of segmentation" in capsys.readouterr().err


def test_invalid_settings(make_scenes: MakeScenes, tmp_path: Path) -> None:
    root = str(make_scenes())
    for wrong, message in (
        ({"crop": [24]}, "crop must be a height and a width"),
        ({"window": [24, 8]}, "window must be a height and a width from 16"),
        ({"views": ["weak", "weak"]}, "views must be one name for segmentation"),
        ({"devices": 3}, "batch_size must be a multiple of the 3 processes, got 8"),
        ({"mix": "mixup"}, "mix has no effect in segmentation"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"method": {"name": "gml", "queries": 0}}, r"queries of gml must be in \[1, "),
        ({"prior_power": -1}, "prior_power must be >= 0, got -1"),
        ({"batch_size": 100}, "batch_size must not exceed the 12 training images"),
        ({"views": "cutout"}, "views of segmentation must be one of"),
        ({"teacher_stage": {"epochs": 1}}, "'ce' does not take a teacher"),
        ({**TAUGHT, "teacher_stage": {"batch_size": 100}}, "^teacher_stage: batch_size must not"),
        ({**TAUGHT, "teacher_stage": {"views": "cutout"}}, "^teacher_stage: views of segment"),
        ({**TAUGHT, "teacher_stage": {"backbone": "none"}}, "^teacher_stage: backbone 'none'"),
        ({**TAUGHT, "teacher_stage": {"epochs": 0}}, "^teacher_stage: epochs must be 1 or more"),
        ({**TAUGHT, "teacher_stage": {"method": NO_SAMPLES}}, "^teacher_stage: samples of bcl"),
    ):
        with pytest.raises(ValueError, match=message):
            api.train(root, **{"method": "ce", **wrong}, task="segmentation", out=tmp_path / "x")
        assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match="task must be one of"):
        api.train(root, "ce", task="poetry")


def test_images_that_cannot_be_read_are_named_once_the_rest_is_written(
    make_scenes: MakeScenes, tmp_path: Path
) -> None:
    root = make_scenes()
    run = train(settings(root, "ce", epochs=1, prior_power=0.5), tmp_path / "run")
    broken = root / "images" / "test" / "001.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UnreadableImagesError, match=r"1 of 4 images.*(?s:.*)001\.png"):
        api.predict(run, [root / "images" / "test"], out=tmp_path / "out")
    assert (tmp_path / "out" / "003.png").is_file()
    for names, message in (
        (("001.png",), "would overwrite an image to predict"),
        (("a.png", "a-overlay.png"), "would both be written to"),
    ):
        folder = tmp_path / "given"
        folder.mkdir(exist_ok=True)
        for name in names:
            Image.new("RGB", (48, 32), "red").save(folder / name)
        out = folder if len(names) == 1 else tmp_path / "other"
        with pytest.raises(ValueError, match=message):
            api.predict(run, folder, out=out)
        (folder / names[0]).unlink()
        assert sorted(path.name for path in folder.iterdir()) == sorted(names[1:])
    masks = root / "masks" / "train"
    before = {path: path.read_bytes() for path in masks.iterdir()}
    with pytest.raises(ValueError, match=r"out of predict must be a new folder, .*masks/train/"):
        api.predict(run, root / "images" / "train", out=masks)
    (masks / "classes.txt").write_text("of the masks\n")
    with pytest.raises(ValueError, match=r"for the same classes; .*train/classes\.txt would be"):
        api.predict(run, root / "images" / "train", out=masks)
    (masks / "classes.txt").unlink()
    assert {path: path.read_bytes() for path in masks.iterdir()} == before
    with pytest.raises(UnreadableImagesError):  # again into its own folder
        api.predict(run, [root / "images" / "test"], out=tmp_path / "out")
    same = [root / "images" / part / "000.png" for part in ("train", "test")]
    with pytest.raises(ValueError, match="would both be written to"):
        api.predict(run, same, out=tmp_path / "out")
    with pytest.raises(ValueError, match="out of predict must be a folder"):
        api.predict(run, same[:1])
    with pytest.raises(ValueError, match=r"not an image file \(1\): .*images/test/001\.png"):
        api.evaluate(run, split="test")
    Image.new("RGB", (48, 32)).save(broken)
    with pytest.raises(ValueError, match=r"split must be one of \['test', 'train'\], got 'val'"):
        api.evaluate(run, split="val")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"crop": [32, 32]}, "images of 32 x 32 pixels .*: set crop"),
        ({"crop": [224, 224]}, "images of 32 x 48 pixels .*: set window"),
        ({"crop": [224, 224], "window": [40, 40]}, "images of 32 x 40 pixels .*: set window"),
    ],
)
def test_an_encoder_of_another_size_is_refused_first(
    sizes: dict[str, Any], message: str, make_scenes: MakeScenes, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    encoder = {"backbone": "swin_tiny_patch4_window7_224", "decoder": "pyramid"}
    with pytest.raises(ValueError, match=message):
        train(settings(make_scenes(), **encoder, **sizes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
