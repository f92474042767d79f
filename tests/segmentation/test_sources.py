import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtail.data.samplers import draw
from longtail.segmentation import (
    BadPairsError,
    PixelDataConfig,
    RandomPairCrops,
    counts,
    load_pixels,
)

MakeScenes = Callable[..., Path]


def save(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)


def grey(height: int = 2, width: int = 2) -> np.ndarray:
    return np.full((height, width, 3), 100, dtype=np.uint8)


def test_a_folder_of_images_and_masks(make_scenes: MakeScenes) -> None:
    data = load_pixels(PixelDataConfig(str(make_scenes())))
    assert data.class_names == ("ground", "sky", "box", "pole")
    assert data.val is None
    assert data.evaluated == "test"
    assert data.train.images is not None
    assert data.train.images.shape == (12, 4, 32, 48)
    masks = data.train.images[:, 3]
    counted = torch.bincount(masks[masks != 255], minlength=4)
    assert torch.equal(data.prior.counts, counted)
    assert data.image_prior.counts.tolist() == [12, 12, 12, 6]
    # Every second scene has a pole, the rarest class: the samplers go by it.
    assert (data.train.labels == 3).tolist() == [True, False] * 6


def test_priors_of_what_samplers_draw(make_scenes: MakeScenes) -> None:
    data = load_pixels(PixelDataConfig(str(make_scenes(sizes={"train": 3}))))
    assert data.train.labels.tolist() == [3, 2, 3]  # the rarest class in each image
    assert data.priors_as_drawn("shuffle") == (data.prior, data.image_prior)
    for sampler in ("class_balanced", "square_root"):
        drawn = torch.zeros(3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(2000):
            drawn += torch.bincount(draw(data.train.labels, sampler, generator), minlength=3)
        prior, image_prior = data.priors_as_drawn(sampler)
        for found, counted in ((prior, data.train.pixels), (image_prior, data.train.pixels > 0)):
            expected = drawn.double() @ counted.double()
            torch.testing.assert_close(
                found.probabilities, expected / expected.sum(), rtol=0.02, atol=0
            )  # of 6000 draws


def test_without_names_every_value_is_a_class(make_scenes: MakeScenes) -> None:
    root = make_scenes()
    (root / "classes.txt").unlink()
    names = load_pixels(PixelDataConfig(str(root))).class_names
    assert names == ("class 0", "class 1", "class 2", "class 3")


def test_smaller_images(make_scenes: MakeScenes) -> None:
    data = load_pixels(PixelDataConfig(str(make_scenes()), image_size=16))
    assert data.train.images is not None
    assert data.train.images.shape == (12, 4, 16, 24)
    assert set(data.train.images[:, 3].unique().tolist()) <= {0, 1, 2, 3, 255}


def test_colour_masks(make_scenes: MakeScenes, tmp_path: Path) -> None:
    root = make_scenes()
    plain = load_pixels(PixelDataConfig(str(root)))
    colours = {0: (1, 0, 0), 1: (0, 1, 0), 2: (0, 0, 1), 3: (9, 9, 9), 255: (0, 0, 0)}
    for path in (root / "masks").rglob("*.png"):
        values = np.array(Image.open(path))
        table = np.zeros((256, 3), dtype=np.uint8)
        for value, colour in colours.items():
            table[value] = colour
        save(path, table[values])
    names = ("ground", "sky", "box", "pole", "void")
    lines = [f"{r} {g} {b} {n}" for (r, g, b), n in zip(colours.values(), names, strict=True)]
    (tmp_path / "palette.txt").write_text("\n".join(lines), encoding="utf-8")
    data = load_pixels(PixelDataConfig(str(root), palette=str(tmp_path / "palette.txt")))
    assert data.class_names == names[:4]
    assert plain.train.images is not None
    assert data.train.images is not None
    assert torch.equal(data.train.images, plain.train.images)


def test_camvid(tmp_path: Path) -> None:
    mask = np.arange(12).reshape(3, 4)
    for part in ("train", "val", "test"):
        save(tmp_path / part / "a.png", grey(3, 4))
        save(tmp_path / f"{part}annot" / "a.png", mask)
    for config in (PixelDataConfig("camvid", root=str(tmp_path)), PixelDataConfig(str(tmp_path))):
        data = load_pixels(config)
        assert data.name == "camvid"
        assert data.prior.counts.tolist() == [1] * 11
        assert list(data.splits) == ["train", "val", "test"]
        assert data.train.images is not None
        assert data.train.images[0, 3, 2].tolist() == [8, 9, 10, 255]
    for part in ("val", "test"):
        shutil.rmtree(tmp_path / part)
        shutil.rmtree(tmp_path / f"{part}annot")
    assert list(load_pixels(PixelDataConfig("camvid", root=str(tmp_path))).splits) == ["train"]


def test_cityscapes(tmp_path: Path) -> None:
    mask = np.append(np.arange(19), 255).reshape(4, 5)
    for part, city in (("train", "bonn"), ("val", "ulm"), ("test", "mainz")):
        save(tmp_path / "leftImg8bit" / part / city / f"{city}_0_1_leftImg8bit.png", grey(4, 5))
        if part != "test":
            name = f"{city}_0_1_gtFine_labelTrainIds.png"
            save(tmp_path / "gtFine" / part / city / name, mask)
    data = load_pixels(PixelDataConfig(str(tmp_path)))
    assert data.name == "cityscapes"
    assert data.class_names[18] == "bicycle"
    assert data.prior.counts.tolist() == [1] * 19
    assert data.evaluated == "val"


def test_ade20k(tmp_path: Path) -> None:
    mask = np.arange(151).reshape(1, 151)
    for part in ("training", "validation"):
        save(tmp_path / "images" / part / "a.jpg", grey(1, 151))
        save(tmp_path / "annotations" / part / "a.png", mask)
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName"] + [
        f"{n}\t0\t0\t0\t0\tname {n}, other" for n in range(1, 151)
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows), encoding="utf-8")
    data = load_pixels(PixelDataConfig("ade20k", root=str(tmp_path)))
    assert data.class_names[0] == "name 1"
    (tmp_path / "objectInfo150.txt").write_text("Idx\tTitle\n1\twall\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"objectInfo150\.txt must have a column Name, got \['Idx"):
        load_pixels(PixelDataConfig("ade20k", root=str(tmp_path)))
    (tmp_path / "objectInfo150.txt").unlink()
    data = load_pixels(PixelDataConfig("ade20k", root=str(tmp_path)))
    assert data.class_names[0] == "class 1"
    assert data.prior.counts.tolist() == [1] * 150
    assert data.evaluated == "val"


def test_all_bad_pairs_are_named_at_once_by_reason(make_scenes: MakeScenes) -> None:
    root = make_scenes()
    masks, images = root / "masks" / "train", root / "images" / "train"
    save(masks / "000.png", np.zeros((5, 7)))
    for name in ("001.png", "002.png"):
        save(masks / name, np.full((32, 48), 9))
    save(masks / "003.png", np.full((32, 48), 255))
    (masks / "004.png").write_bytes(b"no picture")
    (images / "005.png").write_bytes(b"")
    with pytest.raises(BadPairsError, match="6 of 16 images with masks cannot be used") as error:
        load_pixels(PixelDataConfig(str(root)))
    lines = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    assert sorted(lines) == sorted(
        [
            f"  the mask is (7, 5) pixels, its image (48, 32) (1): {masks}/000.png",
            f"  value 9 is not a class (2): {masks}/001.png, {masks}/002.png",
            f"  all its pixels are ignored (1): {masks}/003.png",
            f"  not an image file (1): {masks}/004.png",
            f"  the file is empty (1): {images}/005.png",
        ]
    )


def test_masks_that_a_layout_lacks_are_named_once(tmp_path: Path) -> None:
    for number in range(30):
        save(tmp_path / "train" / f"{number:02d}.png", grey())
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(BadPairsError, match="30 of 30") as error:
        load_pixels(PixelDataConfig(str(tmp_path)))
    assert str(error.value).count("there is no such file (30): ") == 1
    assert len(str(error.value).splitlines()) == 3


def test_a_class_without_a_pixel(make_scenes: MakeScenes) -> None:
    root = make_scenes()
    with (root / "classes.txt").open("a", encoding="utf-8") as handle:
        handle.write("whale\n")
    with pytest.raises(ValueError, match=r"1 of 5 have none: whale"):
        load_pixels(PixelDataConfig(str(root)))


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one of camvid, cityscapes, ade20k or a folder"):
        load_pixels(PixelDataConfig(str(tmp_path)))
    with pytest.raises(ValueError, match=r"does not hold camvid: set data\.root"):
        load_pixels(PixelDataConfig("camvid", root=str(tmp_path)))
    with pytest.raises(ValueError, match=r"There is no folder .*/none"):
        load_pixels(PixelDataConfig(str(tmp_path / "none")))
    save(tmp_path / "images" / "a.png", grey())
    save(tmp_path / "masks" / "a.png", [[0, 1]])
    with pytest.raises(ValueError, match=r"has the folders \(2\): images/, masks/$"):
        load_pixels(PixelDataConfig(str(tmp_path)))
    for kind in ("images", "masks"):
        save(tmp_path / kind / "train" / "a.png", [[0, 1]])
    for wrong, message in (
        ({"root": "data"}, "root has no effect if the source is a folder"),
        ({"palette": "p", "classes": "c"}, "classes must be left out if data.palette"),
        ({"palette": "p", "values": [0, 1]}, "values must be left out if data.palette"),
    ):
        with pytest.raises(ValueError, match=message):
            load_pixels(PixelDataConfig(str(tmp_path), **wrong))
    (tmp_path / "ade" / "images" / "training").mkdir(parents=True)
    (tmp_path / "ade" / "annotations" / "training").mkdir(parents=True)
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(ValueError, match="palette has no effect: layout cityscapes defines"):
        load_pixels(PixelDataConfig(str(tmp_path), palette="p"))
    with pytest.raises(ValueError, match="values has no effect: layout ade20k defines"):
        load_pixels(PixelDataConfig("ade20k", root=str(tmp_path / "ade"), values=[0, 1]))
    for wrong in (
        {"image_size": 0},
        {"workers": -1},
        {"values": [0]},
        {"values": [0, 0]},
        {"values": [0, 256]},
        {"ignored": [-1]},
        {"values": [0, 1], "ignored": [1]},
    ):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}.* must "):
            PixelDataConfig("x", **wrong)


def test_counted_once(make_scenes: MakeScenes, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_scenes()
    config = PixelDataConfig(str(root))
    looks: list[str] = []
    look_at = counts._look_at
    monkeypatch.setattr(counts, "_look_at", lambda *a: looks.append(a[1]) or look_at(*a))
    first = load_pixels(config).prior
    assert len(looks) == 16
    assert load_pixels(config).prior == first
    assert len(looks) == 16
    path = root / "masks" / "train" / "000.png"
    mask = np.array(Image.open(path))
    mask[-1] = 1
    save(path, mask)
    os.utime(path, ns=(1, 1))
    changed = load_pixels(config).prior
    assert len(looks) == 32
    assert changed != first
    for cache in root.glob(".longtail-pixels-*.npz"):
        cache.write_bytes(b"cut short")
    assert load_pixels(config).prior == changed


def test_a_folder_that_cannot_be_written_to(
    make_scenes: MakeScenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_scenes()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(counts, "whole_file", refuse)
    assert load_pixels(PixelDataConfig(str(root))).prior.num_classes == 4
    assert not list(root.glob(".longtail*"))


def test_crops_from_files(make_scenes: MakeScenes) -> None:
    data = load_pixels(PixelDataConfig(str(make_scenes())))
    split = data.train
    assert split.images is not None
    whole = RandomPairCrops(data.reader(split), (32, 48), (1.0, 1.0))
    assert torch.equal(whole(split.paths[0]), split.images[0])
    larger = RandomPairCrops(data.reader(split), (40, 60), (1.0, 1.0))(split.paths[0])
    assert torch.equal(larger[:, :32, :48], split.images[0])
    assert (larger[3, 32:] == 255).all()
    assert (larger[3, :, 48:] == 255).all()
    part = RandomPairCrops(data.reader(split), (16, 16), (1.0, 1.0))
    torch.manual_seed(0)
    cut = part(split.paths[0])
    torch.manual_seed(0)
    assert torch.equal(part(split.paths[0]), cut)
    double = RandomPairCrops(data.reader(split), (64, 96), (2.0, 2.0))
    assert torch.equal(double(split.paths[0])[3, ::2, ::2], split.images[0, 3])
