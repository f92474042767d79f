"""Images with masks as people have them: values, names and folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtail.segmentation import BadPairsError, PixelDataConfig, PixelDataset, load_pixels

HEIGHT, WIDTH = 8, 16


def save(path: Path, values: object, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path, **options)


def mask_of(values: tuple[int, ...]) -> np.ndarray:
    """Stripes of these values."""
    return np.repeat(np.resize(values, WIDTH), HEIGHT).reshape(WIDTH, HEIGHT).T


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes images with masks of these values, under these names."""

    def make(
        values: tuple[int, ...] = (0, 1),
        images: str = "images/{split}/{n}.jpg",
        masks: str = "masks/{split}/{n}.png",
        splits: tuple[str, ...] = ("train", "test"),
    ) -> Path:
        root = tmp_path / "own"
        for split in splits:
            for n in range(3):
                save(root / images.format(split=split, n=n), np.full((HEIGHT, WIDTH, 3), 9))
                save(root / masks.format(split=split, n=n), mask_of(values))
        return root

    return make


def load(root: Path, **settings: object) -> PixelDataset:
    return load_pixels(PixelDataConfig(str(root), **settings))  # type: ignore[arg-type]


def classes(data: PixelDataset) -> list[int]:
    assert data.train.images is not None
    return data.train.images[0, 3, 0].unique().tolist()


@pytest.mark.parametrize(
    ("values", "names", "found"),
    [
        ((0, 1), ("class 0", "class 1"), [0, 1]),
        ((0, 1, 2, 255), ("class 0", "class 1", "class 2"), [0, 1, 2, 255]),
        ((1, 2, 3), ("class 1", "class 2", "class 3"), [0, 1, 2]),
        ((1, 2, 255), ("class 1", "class 2"), [0, 1, 255]),
    ],
)
def test_values_that_cannot_be_mistaken(make, values, names, found) -> None:
    data = load(make(values))
    assert data.class_names == names
    assert classes(data) == found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 255), r"the values 0 and 255: is 255 a class\? Then set --data.values 0 255"),
        ((1, 255), r"the values 1 and 255: is 255 a class\? Then set --data.values 1 255"),
        ((0, 128, 255), "have the values 0, 128, 255, which .* in --data.values 0 128 255;"),
        ((0, 1, 3), "have the values 0, 1, 3, which are not 0 to C - 1"),
        ((2, 3), "have the values 2 and 3, which are not 0 to C - 1"),
        ((0,), "have the values 0: they must be of two or more classes"),
        ((255,), "have the values 255: they must be of two or more classes"),
    ],
)
def test_values_that_could_be_mistaken(make, values, message) -> None:
    with pytest.raises(ValueError, match=message):
        load(make(values))


@pytest.mark.parametrize("values", [(0, 255), (0, 128, 255), (7, 3, 200)])
def test_given_values(make, values) -> None:
    data = load(make(values), values=[*values])
    assert data.class_names == tuple(f"class {value}" for value in values)
    assert data.train.images[0, 3, 0, : len(values)].tolist() == [*range(len(values))]
    assert data.prior.num_classes == len(values)


def test_ignored_values(make) -> None:
    root = make((0, 1, 2, 9))
    data = load(root, ignored=[0, 9])
    assert data.class_names == ("class 1", "class 2")
    assert classes(data) == [0, 1, 255]
    with pytest.raises(BadPairsError, match=r"value 0, 9 is not a class \(6\)"):
        load(root, values=[1, 2])


def test_values_beside_names(make) -> None:
    root = make((0, 1, 2))
    (root / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(ValueError, match=r"values 0 to 2, but 2 classes are named: .*ignored 0"):
        load(root)
    data = load(root, ignored=[0])
    assert (data.class_names, classes(data)) == (("sky", "road"), [0, 1, 255])
    with pytest.raises(ValueError, match=r"a value for each of the 2 classes .*, got 3"):
        load(root, values=[0, 1, 2])


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 2, 3), (0, 128, 254)])
def test_names_in_the_order_of_the_values(make, values) -> None:
    root = make(values)
    (root / "classes.txt").write_text("a\nb\nc\n")
    data = load(root)
    assert (data.class_names, classes(data)) == (("a", "b", "c"), [0, 1, 2])


def test_a_single_class_is_refused(make, tmp_path) -> None:
    root = make((0, 255))
    (tmp_path / "one.txt").write_text("all\n")
    with pytest.raises(ValueError, match="all pixels are of one class, 'all'; two or more"):
        load(root, classes=str(tmp_path / "one.txt"))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{split}/{n}.jpg", "masks/{split}/{n}.PNG"),
        ("images/{split}/{n}.jpg", "masks/{split}/{n}_mask.png"),
        ("images/{split}/{n}.jpg", "masks/{split}/{n}.jpg.png"),
        ("images/{split}/{n}_image.jpg", "masks/{split}/{n}-Label.png"),
        ("images/{split}/{n}.png", "masks/{split}/{n}.tif"),
        ("images/{split}/{n}.jpg", "labels/{split}/{n}.png"),
        ("IMG/{split}/{n}.jpg", "Annotations/{split}/{n}.png"),
        ("images/{split}/a/{n}.jpg", "masks/{split}/a/{n}.png"),
        ("{split}/images/{n}.jpg", "{split}/masks/{n}.png"),
        ("{split}/JPEGImages/{n}.jpg", "{split}/SegmentationClass/{n}.png"),
    ],
)
def test_names_of_files_and_folders(make, images, masks) -> None:
    data = load(make(images=images, masks=masks))
    assert (len(data.train), len(data.test)) == (3, 3)
    assert data.train.masks[1].endswith(masks.format(split="train", n=1))


@pytest.mark.parametrize("splits", [("Train", "Valid"), ("training", "validation")])
def test_names_of_splits(make, splits) -> None:
    data = load(make(splits=splits))
    assert list(data.splits) == ["train", "val"]


def test_a_split_without_masks_is_left_out(make) -> None:
    root = make(splits=("train", "val", "test"))
    shutil.rmtree(root / "masks" / "test")
    with pytest.warns(UserWarning, match="left out test, which has no masks"):
        data = load(root)
    assert list(data.splits) == ["train", "val"]


def test_all_that_is_wrong_with_the_names_is_said_once(make) -> None:
    root = make(masks="masks/{split}/m{n}.png")
    for n in range(20):
        save(root / "images" / "train" / f"more{n}.png", np.zeros((HEIGHT, WIDTH, 3)))
    with pytest.raises(ValueError, match=r"images without a mask \(26\): train/0.jpg, ") as error:
        load(root)
    text = str(error.value)
    assert "must be NAME.png or NAME_mask.png; " in text
    assert "masks/train has m0.png, m1.png, m2.png, ..." in text
    assert len(text.splitlines()) == 1


def test_a_mask_of_two_images_and_two_masks_of_an_image(make) -> None:
    root = make()
    save(root / "images" / "train" / "0.png", np.zeros((HEIGHT, WIDTH, 3)))
    save(root / "masks" / "train" / "1.bmp", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match=r"same mask \(1\): 0.jpg and 0.png \(0.png\)") as error:
        load(root)
    assert "several masks (1): train/1.jpg (1.bmp, 1.png)" in str(error.value)


def test_two_folders_of_masks(make) -> None:
    root = make()
    (root / "labels" / "train").mkdir(parents=True)  # of text files, for another program
    (root / "labels" / "train" / "0.txt").write_text("0 0.5 0.5 1 1")
    assert len(load(root).train) == 3
    save(root / "labels" / "train" / "0.png", mask_of((0, 1)))
    with pytest.raises(ValueError, match="several folders for train: labels/train, masks/train"):
        load(root)


def test_masks_that_are_jpeg(make) -> None:
    root = make((0, 255))
    for path in (root / "masks").rglob("*.png"):
        values = np.array(Image.open(path))
        path.unlink()
        save(path.with_suffix(".jpg"), values, quality=50)
    with pytest.raises(ValueError, match=r"masks that are JPEG \(6\): .* or give the values"):
        load(root)
    data = load(root, values=[0, 255])
    assert classes(data) == [0, 1]
    assert torch.equal(data.train.images[0, 3, 0], torch.arange(WIDTH) % 2)
    with pytest.raises(BadPairsError, match=r"JPEG changes the values at edges; save .* as PNG"):
        load(root, values=[0, 128, 255])


@pytest.mark.parametrize("listed", [True, False])
def test_the_layout_of_ade20k_with_classes_of_your_own(make, tmp_path, listed) -> None:
    root = make(
        (0, 1, 2),
        "images/{split}/{n}.jpg",
        "annotations/{split}/{n}.png",
        ("training", "validation"),
    )
    with pytest.raises(ValueError, match=r"148 of 150 have none: .*; classes of your own are"):
        load(root)
    file = (root if listed else tmp_path) / "classes.txt"
    file.write_text("cat\ndog\n")
    data = load(root) if listed else load(root, classes=str(file))
    assert (data.name, data.class_names) == ("own", ("cat", "dog"))
    assert classes(data) == [0, 1, 255]  # 0 is ignored, as in ADE20K


def test_the_layout_of_camvid_with_classes_of_your_own(make, tmp_path) -> None:
    root = make((0, 1, 2), "{split}/{n}.png", "{split}annot/{n}.png", ("train", "val"))
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    data = load(root, classes=str(tmp_path / "c.txt"), ignored=[2])
    assert (data.name, data.class_names, classes(data)) == ("own", ("cat", "dog"), [0, 1, 255])
    data = load(root, values=[0, 1, 2])
    assert data.class_names == ("class 0", "class 1", "class 2")
    with pytest.raises(ValueError, match=r"ignored has no effect: .* named by --data\.classes"):
        load(root, ignored=[2])
