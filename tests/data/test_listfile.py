import json
from pathlib import Path

import pytest

from longtail.data import DataConfig, load


@pytest.fixture
def places(tmp_path: Path, save_image) -> Path:
    """A root with images of three classes, and the lists of Places-LT beside it."""
    lists = {"train": [0, 0, 0, 1, 1, 2], "val": [0, 2], "test": [2, 1, 0]}
    (tmp_path / "lists").mkdir()
    for part, labels in lists.items():
        lines = [f"{part}/a b/{n}.png {label}" for n, label in enumerate(labels)]
        (tmp_path / "lists" / f"Places_LT_{part}.txt").write_text("\n".join(lines) + "\n")
        for n in range(len(labels)):
            save_image(tmp_path / "root" / part / "a b" / f"{n}.png", n)
    (tmp_path / "lists" / "Places_LT_classnames.txt").write_text("/a barn\n/b bar\n/c barn\n")
    return tmp_path


def config(places: Path, **more) -> DataConfig:
    return DataConfig("places-lt", root=str(places / "root"), lists=str(places / "lists"), **more)


def test_lists_labels_and_class_names(places):
    data = load(config(places))
    assert data.class_names == ("barn (/a)", "bar", "barn (/c)")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert data.test.labels.tolist() == [2, 1, 0]
    assert data.test.index.tolist() == [0, 1, 2]
    assert data.val.paths[1] == str(places / "root" / "val" / "a b" / "1.png")


def test_without_class_names_the_numbers_serve(places):
    (places / "lists" / "Places_LT_classnames.txt").unlink()
    assert load(config(places)).class_names == ("0", "1", "2")


def test_images_are_opened_only_when_asked(places):
    (places / "root" / "train" / "a b" / "0.png").write_bytes(b"")
    assert load(config(places, image_size=224)).train.images is None
    with pytest.raises(ValueError, match="1 of 11 images cannot be read"):
        load(config(places, image_size=224, check="decode"))


def test_missing_files_are_named_with_their_lines(places):
    (places / "root" / "train" / "a b" / "4.png").unlink()
    (places / "root" / "test" / "a b" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"files that do not exist \(2\)") as caught:
        load(config(places))
    assert "4.png (Places_LT_train.txt, line 5)" in str(caught.value)
    assert "0.png (Places_LT_test.txt, line 1)" in str(caught.value)


def test_lines_that_are_no_path_and_label(places):
    file = places / "lists" / "Places_LT_val.txt"
    file.write_text("a.png 0\nb.png\nc.png x\nd.png -1\n")
    with pytest.raises(
        ValueError,
        match=r"lines that are not `path label` \(3\): 'b.png' \(Places_LT_val.txt, line 2\)",
    ):
        load(config(places))


def test_labels_beyond_the_class_names(places):
    with (places / "lists" / "Places_LT_train.txt").open("a") as file:
        file.write("x.png 3\n")
    with pytest.raises(
        ValueError, match=r"labels beyond the 3 classes .* \(1\): 3 \(Places_LT_train.txt, line 7\)"
    ):
        load(config(places))


def test_a_class_of_the_names_without_an_image(places):
    with (places / "lists" / "Places_LT_classnames.txt").open("a") as file:
        file.write("/d loft\n")
    with pytest.raises(ValueError, match=r"classes without an image \(1\): 'loft'"):
        load(config(places))


def test_absent_lists_and_root(places):
    (places / "lists" / "Places_LT_test.txt").unlink()
    with pytest.raises(ValueError, match=r"missing: Places_LT_test\.txt\. Set lists"):
        load(config(places))
    with pytest.raises(ValueError, match="root must be given for places-lt"):
        load(DataConfig("places-lt"))


def test_inaturalist_tests_on_its_validation_list(tmp_path, save_image):
    for part, labels in (("train", [1, 0, 0]), ("val", [0, 1])):
        lines = [f"{part}{n}.png {label}" for n, label in enumerate(labels)]
        (tmp_path / f"iNaturalist18_{part}.txt").write_text("\n".join(lines))
        for n in range(len(labels)):
            save_image(tmp_path / f"{part}{n}.png", n)
    records = [{"id": 1, "name": "Parus major"}, {"id": 0, "name": "Apis mellifera"}]
    (tmp_path / "inat18_categories.json").write_text(json.dumps(records))
    data = load(DataConfig("inaturalist18", root=str(tmp_path)))
    assert data.class_names == ("Apis mellifera", "Parus major")
    assert data.prior.counts.tolist() == [2, 1]
    assert data.val is None
    assert data.test.labels.tolist() == [0, 1]
