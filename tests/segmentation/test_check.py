"""`longtail data check` of images and masks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import longtail
from longtail.cli import main
from longtail.segmentation import PixelDataConfig
from longtail.segmentation.check import check_pixels

MakeScenes = Callable[..., Path]


def check(root: Path, **settings: object) -> str:
    return str(check_pixels(PixelDataConfig(str(root), **settings), verbose=False))  # type: ignore[arg-type]


def test_a_sound_data_set(make_scenes: MakeScenes) -> None:
    root = make_scenes(sizes={"train": 12, "test": 6})
    text = check(root)
    assert text.startswith("scenes: 4 classes: ground, sky, box, pole\ntrain: 12 images; 6.2 % of")
    assert "(pole, in 6 images)" in text
    assert "files: 18 images with masks read\n" in text
    assert text.endswith("warning: classes in fewer than 5 test images (1): pole (3)")


def test_all_faults_are_reported(make_scenes: MakeScenes) -> None:
    root = make_scenes()
    with (root / "classes.txt").open("a", encoding="utf-8") as handle:
        handle.write("whale\n")
    shutil.copy(root / "images/train/000.png", root / "images/test/001.png")
    (root / "images/train/005.png").write_bytes((root / "images/train/005.png").read_bytes()[:99])
    text = check(root)
    for line in (
        r"problem: classes without a pixel in the training split (1): whale",
        f"problem: images that cannot be read (1): {root}/images/train/005.png: ",
        f"same file in two splits (1): {root}/images/train/000.png and {root}/images/test/001.png",
        "whale (0)",
    ):
        assert line in text


def test_masks_that_cannot_be_used(make_scenes: MakeScenes) -> None:
    root = make_scenes()
    for number in (1, 2):
        Image.fromarray(np.full((32, 48), 9, np.uint8)).save(root / f"masks/train/00{number}.png")
    text = check(root)
    assert f"problem: value 9 is not a class (2): {root}/masks/train/001.png, {root}" in text
    (root / "classes.txt").unlink()
    with pytest.raises(ValueError, match="have the values 0, 1, 2, 3, 9, 255"):
        check(root)
    assert "5 classes: class 0, class 1" in check(root, values=[0, 1, 2, 3, 9])


def test_from_the_command_line_and_python(
    make_scenes: MakeScenes, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(make_scenes())
    assert main(["data", "check", root, "--task", "segmentation"]) == 0
    assert "scenes: 4 classes" in capsys.readouterr().out
    words = ["data", "check", root, "--task", "segmentation", "--data.values", "0", "1"]
    assert main(words) == 2
    assert "a value for each of the 4 classes" in capsys.readouterr().err
    assert main(["data", "check", root]) == 2
    assert "trained on with --task segmentation" in capsys.readouterr().err
    assert main(["data", "check", "camvid", "--data.root", root]) == 2
    assert "does not hold camvid" in capsys.readouterr().err
    given = {"source": root, "values": [0, 1, 2, 3]}
    assert not longtail.api.check_data(given, task="segmentation").problems
    with pytest.raises(ValueError, match=r"unknown setting .data\.values."):
        longtail.api.check_data({"source": "digits-lt", "values": [0, 1]})
