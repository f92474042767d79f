"""Runs of segmentation from strangers, that end badly, or that have not ended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from longtail import api
from longtail.errors import InputError, NotFiniteError
from longtail.segmentation import PixelConfig, PixelDataConfig, PixelRun, SmallUNet, task
from longtail.tasks import train

MakeScenes = Callable[..., Path]


def tiny_unet() -> SmallUNet:
    return SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6)


OWN = f"{__name__}.tiny_unet"


def settings(root: Path) -> PixelConfig:
    return PixelConfig(
        data=PixelDataConfig(str(root)),
        method={"name": "ce"},
        backbone=OWN,
        epochs=2,
        batch_size=4,
        crop=[24, 24],
        precision="32-true",
        device="cpu",
    )


def test_a_run_that_has_not_ended_is_used_as_of_its_last_checkpoint(
    make_scenes: MakeScenes, tmp_path: Path
) -> None:
    root, folder = make_scenes(), tmp_path / "run"
    ended = train(settings(root), folder).metrics
    (folder / "metrics.json").unlink()
    assert not PixelRun(folder).finished
    with pytest.warns(UserWarning, match="after 2 of 2 epochs"):
        now = api.evaluate(folder, trust=tiny_unet)
    assert now == {name: ended[name] for name in now}
    with pytest.warns(UserWarning, match="after 2 of 2 epochs"):
        found = api.predict(folder, root / "images" / "test", out=tmp_path / "o", trust=OWN)
    assert len(found) == len(list((root / "images" / "test").iterdir()))
    assert train(settings(root), folder, resume=True).metrics == ended


def test_a_model_that_gives_nan_is_not_kept(
    make_scenes: MakeScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*args: Any, **options: Any) -> Any:
        raise NotFiniteError("NaN")

    root, folder = make_scenes(), tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(task, "confusion_of", burst)
        with pytest.raises(NotFiniteError, match=r"NaN or infinite logits.*epoch-000001"):
            train(settings(root), folder)
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "metrics.json").exists()
    assert train(settings(root), folder, resume=True).finished


def test_the_files_of_a_stranger_are_data(make_scenes: MakeScenes, tmp_path: Path) -> None:
    folder = train(settings(make_scenes()), tmp_path / "run").folder
    file = folder / "model.safetensors"
    with safe_open(file, framework="pt") as handle:
        card = json.loads(handle.metadata()["longtail"])
    weights = load_file(file)
    for wrong, message in (
        ({"backbone": "os.abort"}, r"names the backbone 'os\.abort'.*--trust os\.abort"),
        ({"backbone": "resnet18", "decoder": "os.abort"}, "decoder must be one of"),
        ({"decoder": None}, "decoder is missing"),
        ({"expresses": "/etc/passwd"}, "expresses must be"),
        ({"image_size": 10**9}, "image_size must be"),
    ):
        save_file(weights, file, metadata={"longtail": json.dumps({**card, **wrong})})
        with pytest.raises(InputError, match=message):
            PixelRun(folder, OWN).model()
    save_file(weights, file, metadata={"longtail": json.dumps(card)})
    for matrix in (None, [[1]], [["x"] * 4] * 4, [[-1] * 4] * 4, [[10**400] * 4] * 4):
        (folder / "confusion.json").write_text(json.dumps({"matrix": matrix}))
        with pytest.raises(InputError, match=r"confusion\.json is not valid: matrix"):
            api.evaluate(folder)
