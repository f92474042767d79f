"""Every row of the table of layouts in docs/data.md, made on disk and read."""

import itertools
import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

from longtail.data import DataConfig, load

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
LAYOUT = re.compile(r"\| (`.+`) \| (.+?) \| (Read|Asked|Refused): (.+) \|")
ROWS = [LAYOUT.fullmatch(line) for line in PAGE.read_text("utf-8").splitlines()]
LAYOUTS = [(row[1], row[3], row[4]) for row in ROWS if row]
MADE = "a test split is made from train"
IMAGES = {".jpg", ".jpeg", ".png", ".ppm"}


def expand(pattern: str) -> list[str]:
    """Braces as the shell has them; a star is three names."""
    pieces = re.split(r"\{(.+?)\}", pattern.replace("*", "{1,2,3}"))
    choices = [piece.split(",") if n % 2 else [piece] for n, piece in enumerate(pieces)]
    return ["".join(path) for path in itertools.product(*choices)]


def make(top: Path, layout: str) -> Path:
    files = [path for pattern in re.findall("`(.+?)`", layout) for path in expand(pattern)]
    for n, name in enumerate(files):
        path = top / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in IMAGES:
            Image.new("RGB", (8, 8), (n % 256, n // 256, 99)).save(path)
        else:
            path.write_text("path,label\n")
    return top / "set"


def test_the_table_is_read():
    assert len(LAYOUTS) > 40


@pytest.mark.parametrize(("layout", "outcome", "text"), LAYOUTS)
def test_layout(tmp_path, layout, outcome, text):
    top = make(tmp_path, layout)
    if outcome != "Read":
        words = re.findall("`(.+?)`", text)
        with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
            load(DataConfig(str(top)))
        assert "\n" not in str(caught.value)
        return
    read, *left_out = re.split("; (?:left out|warned): ", text)
    classes, splits = read.split(" in ")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        data = load(DataConfig(str(top)))
    assert ", ".join(data.class_names) == classes
    assert ", ".join(data.splits) == splits
    assert len(warned) == bool(left_out)
    assert all(left_out[0].strip("`") in str(warning.message) for warning in warned)
    for split in data.splits.values():
        assert set(split.labels.tolist()) == set(range(len(data.class_names)))


@pytest.mark.parametrize(
    ("depth", "classes"),
    [(1, ("birds", "mammals")), (2, ("cat", "dog", "other", "owl"))],
)
def test_depth_decides(tmp_path, depth, classes):
    top = make(tmp_path, "`mammals/{cat,dog,other}/*.jpg` `birds/{owl,other}/*.jpg`")
    data = load(DataConfig(str(top), depth=depth))
    assert data.class_names == classes
    assert sum(map(len, data.splits.values())) == 15


def test_a_depth_that_an_image_does_not_reach(tmp_path):
    top = make(tmp_path, "`mammals/{cat,dog}/*.jpg` `birds/*.jpg`")
    with pytest.raises(ValueError, match=r"depth 2 must .* \(1\): birds$"):
        load(DataConfig(str(top), depth=2))
    with pytest.raises(ValueError, match="depth must be >= 1, got 0"):
        DataConfig(str(top), depth=0)
    with pytest.warns(UserWarning, match="depth=2 has no effect on the source digits-lt"):
        load(DataConfig("digits-lt", depth=2))


def test_depth_counts_from_the_folder_of_the_split(tmp_path):
    top = make(
        tmp_path, "`{train,val}/mammals/{cat,dog}/*.jpg` `{train,val}/birds/{owl,wren}/*.jpg`"
    )
    assert load(DataConfig(str(top), depth=2)).class_names == ("cat", "dog", "owl", "wren")


def test_a_class_of_unreadable_formats_is_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("longtail.data.formats.reads_heif", lambda: False)
    top = make(tmp_path, "`{cat,dog}/*.jpg` `owl/a.heic` `cat/b.NEF`")
    with (
        pytest.warns(UserWarning, match=r"\.nef \(1\), \.heic \(1\); camera raw"),
        pytest.raises(ValueError, match=r"classes without an image \(1\): 'owl'"),
    ):
        load(DataConfig(str(top)))


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("`train/{cat,dog}/*.jpg` `test/{cat,dog}/x.cr2`", r"\(1\): test; they have \.cr2 \(2\)"),
        ("`{train,test}/{cat,dog}/*.jpg` `val/x.NEF`", r"\(1\): val; they have \.nef \(1\)"),
        ("`seg_train/seg_train/{cat,dog}/*.jpg` `seg_test/x.cr2` `notes/x`", r"\(1\): seg_test;"),
        ("`birds/train/{cat,dog}/*.jpg` `birds/test/x.cr2`", r"\(1\): birds/test;"),
        ("`{cat,dog}/train/*.jpg` `cat/test/*.jpg` `dog/test/x.cr2`", r"\(1\): dog/test;"),
    ],
)
def test_a_split_of_unreadable_formats_is_refused(tmp_path, layout, named):
    top = make(tmp_path, layout)
    with pytest.raises(ValueError, match=f"that can be read {named}.*camera raw files"):
        load(DataConfig(str(top)))


@pytest.mark.parametrize(
    ("layout", "empty", "named", "splits", "made"),
    [
        ("`train/{cat,dog}/*.jpg`", ["test/cat", "test/dog"], "test", "train, test", MADE),
        ("`train/{cat,dog}/*.jpg` `val/old.zip`", [], "val", "train, test", MADE),
        ("`train/{cat,dog}/*.jpg` `val/x.txt`", ["test"], "test, val", "train, test", MADE),
        ("`{train,val}/{cat,dog}/*.jpg`", ["test"], "test", "train, val", ""),
        ("`{train,test}/{cat,dog}/*.jpg`", ["val"], "val", "train, test", ""),
        ("`{cat,dog}/train/*.jpg` `cat/test/*.jpg`", ["dog/test"], "dog/test", "train, test", ""),
        (
            "`{cat,dog}/train/*.jpg`",
            ["cat/test", "dog/val"],
            "cat/test, dog/val",
            "train, test",
            MADE,
        ),
        ("`birds/{cat,dog}/*.jpg`", ["test"], "test", "train, test", MADE),
    ],
)
def test_a_split_without_an_image_is_left_out_with_a_warning(
    tmp_path, layout, empty, named, splits, made
):
    top = make(tmp_path, layout)
    for name in empty:
        (top / name).mkdir(parents=True)
    with pytest.warns(UserWarning, match=rf"splits without an image \(\d\): {named}") as warned:
        data = load(DataConfig(str(top)))
    assert ", ".join(data.splits) == splits
    (said,) = (str(warning.message) for warning in warned)
    assert said.endswith(made or named)
    assert bool(made) == (MADE in said)


@pytest.mark.parametrize(
    ("layout", "depth"),
    [
        ("`mammals/{cat,dog}/*.jpg` `birds/owl/*.jpg`", 2),
        ("`{birds,mammals}/{train,test}/*.jpg`", None),
    ],
)
def test_an_empty_class_folder_is_a_problem_in_every_layout(tmp_path, layout, depth):
    top = make(tmp_path, layout)
    (top / ("birds/wren" if depth else "wren")).mkdir()
    with pytest.raises(ValueError, match=r"classes without an image \(1\): 'wren'"):
        load(DataConfig(str(top), depth=depth))


def test_folders_above_the_classes_without_an_image_are_left_out(tmp_path):
    top = make(tmp_path, "`mammals/{cat,dog}/*.jpg` `birds/owl/*.jpg` `scripts/old/run.py`")
    (top / "fish").mkdir()
    with pytest.warns(UserWarning, match="folder without an image: (fish|scripts)$") as warned:
        data = load(DataConfig(str(top), depth=2))
    assert len(warned) == 2
    assert data.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("place", ["cat/raw", "test/dog/raw", "test/owl"])
def test_refused_images_are_counted_wherever_they_are(tmp_path, place):
    layout = "`{cat,dog,owl}/*.jpg`"
    if place.startswith("test"):
        layout = "`train/{cat,dog,owl}/*.jpg` `test/{cat,dog}/*.jpg`"
    top = make(tmp_path, f"{layout} `{place}/x.cr2`")
    with pytest.warns(UserWarning, match=r"left out 1 file.*: \.cr2 \(1\); camera raw"):
        load(DataConfig(str(top)))
