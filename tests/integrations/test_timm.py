"""timm, torchmetrics and `datasets` as the page on other trainers uses them, block by block."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

import longtail
from longtail.data import DataConfig, from_huggingface, load
from longtail.losses import CrossEntropyLoss
from longtail.models import TimmBackbone
from longtail.models.timm_backbone import create_timm

Blocks = Callable[[str], list[str]]
Run = Callable[[str, dict[str, Any]], dict[str, Any]]
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",  # timm leaves the files of its images open
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, blocks: Blocks) -> dict[str, Any]:
    """Names of timm's section after it ran on digits with few of the high ones.

    Its first block runs once more with plain cross-entropy; `plain` are the metrics of that.
    """
    folder = tmp_path_factory.mktemp("timm")
    data = load(DataConfig("digits-lt", imbalance=30))
    for name, split in (("train", data.train), ("test", data.test.take(torch.arange(0, 400, 3)))):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = folder / f"digits/{name}/{int(label)}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    training, weights, _ = blocks("timm")
    plain = training.replace("losses.LogitAdjustedLoss(prior)", "losses.CrossEntropyLoss(prior)")
    assert plain != training
    found = []
    with contextlib.chdir(folder):
        for block in (plain, training + weights):
            torch.manual_seed(0)
            names: dict[str, Any] = {"epochs": 3}
            exec(compile(block, "integrations.md", "exec"), names)
            found.append(names)
    return found[1] | {"plain": found[0]["metrics"]}


def test_a_backbone_from_a_checkpoint(
    blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"TimmBackbone": TimmBackbone, "torch": torch}
    exec(compile(blocks("timm")[2], "integrations.md", "exec"), names)
    torch.save(names["mine"]().model.state_dict(), "mine.pt")
    one, other = (names["mine"](pretrained=True).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_tail_is_found_more_often_than_with_timms_own_loss(
    trained: dict[str, Any], run_blocks: Run
) -> None:
    assert trained["metrics"]["few"] > trained["plain"]["few"] + 0.05
    found = run_blocks("torchmetrics", dict(trained))["accuracy"].compute()
    assert float(found["few"]) == pytest.approx(trained["metrics"]["few"], abs=1e-6)


def test_weights_in_both_directions(trained: dict[str, Any]) -> None:
    """The same loss of the same batch in timm's network and ours, and again after the way back."""
    levels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    target = torch.arange(6)
    model, ours, back = (trained[name].eval().double() for name in ("model", "ours", "back"))
    mean, std = (
        torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1).double() for key in ("mean", "std")
    )
    images = (levels.double() / 255 - mean) / std
    assert sorted(trained["left_out"]) == ["fc.bias", "fc.weight"]
    loss = CrossEntropyLoss(trained["prior"])
    expected = loss(model(images), target)
    torch.testing.assert_close(loss(ours(levels.double()), target), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss(back(images), target), expected, rtol=0, atol=1e-12)


def test_a_dataset_of_hugging_face_trains_as_the_same_images_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_blocks: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load(DataConfig("digits-lt", imbalance=10))
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(digits.class_names))}
    )
    splits = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {
                    "image": [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in split.images],
                    "label": split.labels.tolist(),
                },
                features=features,
            )
            for name, split in digits.splits.items()
        }
    )
    theirs = run_blocks("Hugging Face datasets and Parquet", {})["train_on"](splits)
    same = replace(digits, name="dataset")  # the name decides the recipe
    ours = longtail.train(same, "logit_adjust", epochs=2, verbose=False, out="runs/ours")
    assert [row["loss"] for row in theirs.history] == [row["loss"] for row in ours.history]
    assert (from_huggingface(splits).train.images == digits.train.images).all()


def test_a_backbone_of_another_size_is_refused_first(tmp_path: Path) -> None:
    asked = {"backbone": "vit_tiny_patch16_224", "epochs": 1, "device": "cpu"}
    with pytest.raises(ValueError, match="vit_tiny_patch16_224 does not accept images of 8 x 8"):
        longtail.train("digits-lt", "ce", out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_an_option_that_a_model_does_not_have_is_no_fault_of_the_network() -> None:
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(TypeError, match="output_stride"):
        create_timm(name, True, features_only=True, output_stride=16)
