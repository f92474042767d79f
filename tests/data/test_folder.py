import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from longtail.data import DataConfig, UnreadableImagesError, load
from longtail.training.split_record import write_split


def names_of(split) -> set[str]:
    return {"/".join(Path(path).parts[-2:]) for path in split.paths}


def test_made_split_is_stratified_recorded_and_repeatable(make_folder, tmp_path):
    top = make_folder({"cat": 20, "dog": 5, "eel": 2})
    data = load(DataConfig(str(top)))
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog", "eel")
    assert data.val is None
    assert data.prior.counts.tolist() == [16, 4, 1]
    assert torch.bincount(data.test.labels).tolist() == [4, 1, 1]
    assert not names_of(data.train) & names_of(data.test)
    assert sorted(data.train.index.tolist() + data.test.index.tolist()) == list(range(27))

    again = load(DataConfig(str(top)))
    assert again.train.paths == data.train.paths
    assert load(DataConfig(str(top), seed=1)).test.paths != data.test.paths

    write_split(tmp_path, data)
    replayed = load(DataConfig(str(tmp_path / "split.csv"), seed=99))
    for part in ("train", "test"):
        assert replayed.splits[part].paths == data.splits[part].paths
        assert torch.equal(replayed.splits[part].labels, data.splits[part].labels)
        assert torch.equal(replayed.splits[part].images, data.splits[part].images)


def test_images_are_those_of_the_files(make_folder):
    data = load(DataConfig(str(make_folder({"a": 3, "b": 4}, size=(6, 6)))))
    assert data.image_size == 6
    for split in (data.train, data.test):
        for image, path, label in zip(split.images, split.paths, split.labels, strict=True):
            assert Path(path).parent.name == data.class_names[label]
            with Image.open(path) as file:
                pixels = torch.tensor(list(file.convert("RGB").tobytes()), dtype=torch.uint8)
            assert torch.equal(image.permute(1, 2, 0).flatten(), pixels)


def test_validation_part(make_folder, tmp_path):
    data = load(DataConfig(str(make_folder({"a": 20, "b": 10})), val_fraction=0.1))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 21,
        "val": 3,
        "test": 6,
    }
    with pytest.raises(ValueError, match=r"val_fraction 0.01 leaves .* class has 1\d images"):
        load(DataConfig(str(tmp_path / "pets"), val_fraction=0.01))


def test_parts_of_its_own(make_folder):
    make_folder({"cat": 4, "dog": 2}, "set/train")
    make_folder({"cat": 1, "dog": 3}, "set/test")
    top = make_folder({"cat": 1}, "set/val").parent
    data = load(DataConfig(str(top)))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 6,
        "val": 1,
        "test": 4,
    }
    assert all("/test/" in path for path in data.test.paths)
    shutil.rmtree(top / "test")
    assert load(DataConfig(str(top))).test is None
    shutil.rmtree(top / "val")
    assert len(load(DataConfig(str(top))).test) == 2


def test_a_class_may_be_called_train(make_folder):
    assert load(DataConfig(str(make_folder({"car": 3, "train": 3})))).class_names == (
        "car",
        "train",
    )


def test_numbered_classes_keep_their_order(make_folder):
    data = load(DataConfig(str(make_folder({"10": 2, "9": 2, "0": 2}))))
    assert data.class_names == ("0", "9", "10")


def test_nested_folders_hidden_and_other_files(make_folder, save_image):
    top = make_folder({"a": 2, "b": 2})
    save_image(top / "a" / "deeper" / "x.PNG")
    save_image(top / "a" / ".hidden.png")
    (top / "a" / "Thumbs.db").write_bytes(b"")
    (top / "a" / "notes.txt").write_bytes(b"")
    (top / ".git").mkdir()
    save_image(top / "a" / ".thumbnails" / "x.png")
    save_image(top / "stray.png")
    with pytest.warns(UserWarning, match="left out 2 files") as caught:
        data = load(DataConfig(str(top)))
    assert all(name in str(caught[0].message) for name in (".txt (1)", ".png (1)"))
    assert len(data.train) + len(data.test) == 5


def test_links_that_lead_in_a_circle_are_followed_once(make_folder):
    top = make_folder({"a": 5, "b": 5})
    (top / "a" / "loop").symlink_to(top / "a")
    (top / "b" / "more").symlink_to(make_folder({"c": 3}, name="elsewhere") / "c")
    with pytest.warns(UserWarning, match="a/loop is left out: it is the same folder as .*pets/a$"):
        data = load(DataConfig(str(top)))
    paths = [path for split in data.splits.values() for path in split.paths]
    assert len(paths) == 13
    assert len({Path(path).resolve() for path in paths}) == 13


def test_a_class_under_two_names_has_that_of_its_folder(make_folder):
    top = make_folder({"felines": 5, "dogs": 5})
    (top / "cats").symlink_to("felines")
    with pytest.warns(UserWarning, match="cats is left out: it is the same folder as .*felines"):
        assert load(DataConfig(str(top))).class_names == ("dogs", "felines")


def test_a_folder_that_cannot_be_read(make_folder, monkeypatch):
    top = make_folder({"a": 5, "b": 5, "secret": 5})
    scandir = os.scandir

    def without_secret(path):
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_secret)
    with pytest.raises(ValueError, match="secret cannot be read: Permission denied"):
        load(DataConfig(str(top)))


def test_names_that_are_no_text(make_folder):
    top = make_folder({"a": 5, "b": 5})
    for path in sorted((top / "a").iterdir())[:1]:
        path.rename(os.fsdecode(os.fsencode(top / "a") + b"/\xff.png"))
    with pytest.raises(
        ValueError, match=r"names that are not valid UTF-8 \(1\): b'.*a/\\xff\.png'"
    ):
        load(DataConfig(str(top)))


def test_folders_beside_the_parts_are_named(make_folder):
    make_folder({"a": 2, "b": 2}, "set/train")
    top = make_folder({"a": 2}, "set/extra").parent
    with pytest.warns(
        UserWarning, match=r"left out folders next to train, val and test \(1\): extra"
    ):
        load(DataConfig(str(top)))


def test_a_class_with_one_image_is_told(make_folder):
    top = make_folder({"cat": 9, "owl": 1, "yak": 1})
    with pytest.warns(UserWarning, match=r"pets: classes with a single image.* \(2\): owl, yak"):
        data = load(DataConfig(str(top)))
    assert data.prior.counts.tolist() == [7, 1, 1]


def test_large_images_stay_on_disk(make_folder):
    top = make_folder({"a": 3, "b": 3}, size=(80, 70))
    data = load(DataConfig(str(top)))
    assert data.image_size == 224
    assert data.train.images is None
    assert load(DataConfig(str(top), image_size=64)).train.images.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize("image_size", [8, 128])
def test_broken_images_of_all_parts_are_named_at_once(make_folder, image_size):
    top = make_folder({"a": 12, "b": 12})
    broken = [top / "a" / "001.jpg", top / "a" / "004.png", top / "b" / "011.jpg"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableImagesError) as caught:
        load(DataConfig(str(top), image_size=image_size))
    assert [path for path, _ in caught.value.failures] == list(map(str, broken))
    if image_size == 128:
        assert load(DataConfig(str(top), image_size=128, check="exists")).train.images is None


def test_classes_without_an_image(make_folder):
    top = make_folder({"a": 2, "b": 2, "empty": 0, "void": 0})
    with pytest.raises(ValueError, match=r"classes without an image \(2\): 'empty', 'void'"):
        load(DataConfig(str(top)))


def test_a_label_never_seen_in_training(make_folder):
    make_folder({"a": 2, "b": 2, "wolf": 0}, "set/train")
    top = make_folder({"a": 1, "wolf": 2}, "set/test").parent
    with pytest.raises(
        ValueError, match=r"images of val or test .* \(2\): 'wolf' \(.*test/wolf/000\.png\)"
    ):
        load(DataConfig(str(top)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 5}, "a sub-folder of images for each class, it has 5 images in a"),
        ({"a": 0, "b": 0}, "it has no images"),
        ({}, "must have a sub-folder of images for each class"),
        ({"test/a": 2, "val/a": 2}, "has no folder train with images next to test and val"),
    ],
)
def test_folders_that_are_no_data_set(make_folder, tmp_path, counts, message):
    (tmp_path / "pets").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=message):
        load(DataConfig(str(make_folder(counts))))
