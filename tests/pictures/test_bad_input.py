"""Folders and settings that a training can make little of, by the command, as a person would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtail.cli import main
from longtail.training import Embeddings, Run

Said = pytest.CaptureFixture[str]


def coloured(channel: int, seed: int, side: int = 24) -> Image.Image:
    """Noise in which one channel is stronger."""
    levels = np.random.default_rng(seed).integers(0, 90, (side, side, 3))
    levels[..., channel] += 120
    return Image.fromarray(levels.astype(np.uint8))


def make(root: Path, counts: dict[str, int], side: int = 24) -> Path:
    """A folder for each class, whose images have one stronger channel."""
    for channel, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            coloured(channel, 10_000 * channel + number, side).save(root / name / f"{number}.png")
    return root


def train(folder: Path, *words: str) -> int:
    """Exit status of a training beside the folder."""
    device = ["--device", "cpu", "--precision", "32-true", "--data.image-size", "32"]
    return main(["train", str(folder), "--out", str(folder.parent / "run"), *device, *words])


@pytest.mark.filterwarnings("ignore:.*test images or fewer")
def test_fewer_images_than_a_batch_or_a_validation_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(make(tmp_path / "data", {"a": 4, "b": 2})) == 0
    assert "too few images for a validation split, so fine-tuning is not tried" in caplog.text
    assert Run(tmp_path / "run").config["tune"] == "head"


@pytest.mark.filterwarnings("ignore:.*test images or fewer", "ignore:.*predicts one class only")
@pytest.mark.filterwarnings("ignore:.*nats above the median")  # of one step, on four images
def test_fewer_images_than_a_batch_where_fine_tuning_is_asked_for(tmp_path: Path) -> None:
    words = ("--tune", "all", "--epochs", "1", "--method", "ce")
    assert train(make(tmp_path / "data", {"a": 4, "b": 2}), *words) == 0
    run = Run(tmp_path / "run")
    assert (run.config["batch_size"], len(run.history)) == (4, 1)


@pytest.mark.filterwarnings("ignore:.*test images or fewer")
def test_a_thousand_against_three(tmp_path: Path) -> None:
    assert train(make(tmp_path / "data", {"a": 1000, "b": 3}, side=18), "--tune", "head") == 0
    assert Run(tmp_path / "run").prior.counts.tolist() == [800, 2]


@pytest.mark.filterwarnings(
    "ignore:.*test images or fewer", "ignore:.*no test image", "default:.*a single image"
)
def test_a_class_with_one_image(tmp_path: Path, capsys: Said) -> None:
    folder = make(tmp_path / "data", {"a": 9, "b": 6, "c": 1})
    assert train(folder, "--tune", "head") == 0
    assert "classes with a single image, which are not in the test split (1): c" in (
        capsys.readouterr().err
    )
    assert Run(tmp_path / "run").prior.counts.tolist() == [7, 5, 1]


def test_a_class_in_test_alone(tmp_path: Path, capsys: Said) -> None:
    make(tmp_path / "data" / "train", {"a": 5, "b": 5})
    make(tmp_path / "data" / "test", {"a": 2, "b": 2, "c": 2})
    assert train(tmp_path / "data") == 2
    assert "images of val or test with a label that no training image has (2): 'c'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [{"a": 1}, {"a": 1, "b": 0}], ids=["alone", "empty class"])
def test_one_picture_only(classes: dict[str, int], tmp_path: Path, capsys: Said) -> None:
    assert train(make(tmp_path / "data", classes)) == 2
    assert "cannot be used" in (said := capsys.readouterr().err) or "1 image in a" in said
    assert not (tmp_path / "run").exists()


def test_photographs_of_12000_x_9000(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", {"a": 5, "b": 5})
    Image.new("RGB", (12_000, 9_000), (200, 60, 60)).save(folder / "a" / "large.jpg")
    Image.new("1", (12_000, 9_000), 1).save(folder / "b" / "large.png")
    words = ["embed", str(folder), "--backbone", "efficientnet_lite0", "--data.image-size", "32"]
    words += ["--out", str(tmp_path / "features.parquet")]
    # A process of its own, since pytest makes errors of warnings.
    command = [sys.executable, "-m", "longtail.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "12 images, 1,280 features per image" in done.stdout
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore:.*test images or fewer")
def test_a_cache_that_belongs_to_other_files(tmp_path: Path) -> None:
    def embed() -> np.ndarray:
        out = tmp_path / "features.parquet"
        words = ["embed", str(folder), "--backbone", "efficientnet_lite0", "--out", str(out)]
        assert main([*words, "--data.image-size", "32"]) == 0
        return Embeddings.read(out).features

    folder = make(tmp_path / "data", {"a": 4, "b": 4})
    before = embed()
    shutil.rmtree(folder)
    make(folder, {"b": 4, "a": 4})  # other pictures under the same names
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert np.abs(embed() - before).max() > 0.1
    assert train(folder, "--tune", "head") == 0
    run = Run(tmp_path / "run")
    label, _ = run.predict(coloured(0, 77)).top(1).__next__()[1][0]
    assert label == "b"


@pytest.mark.filterwarnings("ignore:.*test images or fewer", "default:.*is not used")
def test_no_space_for_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    assert train(make(tmp_path / "data", {"a": 6, "b": 5}), "--tune", "head") == 0
    said = capsys.readouterr().err
    assert "is not used" in said
    assert "LONGTAIL_CACHE names another folder" in said


@pytest.mark.filterwarnings("ignore:.*test images or fewer")
def test_minutes_too_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ("--minutes", "0.00001", "--method", "logit_adjust")
    assert train(make(tmp_path / "data", {"a": 6, "b": 5}), *words) == 0
    assert "more than the 1e-05 minutes of --minutes" in caplog.text
    assert "to fine-tune, about" in caplog.text


def test_no_minutes(tmp_path: Path, capsys: Said) -> None:
    assert train(make(tmp_path / "data", {"a": 6, "b": 5}), "--minutes", "0") == 2
    assert "minutes must be > 0, got 0" in capsys.readouterr().err
