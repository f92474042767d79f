import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from longtail.cli import main
from longtail.data import DataConfig, Dataset, Findings, Split, check_source


@pytest.fixture
def table(tmp_path: Path, save_image) -> Path:
    """Three classes in a table, 100 test images; returns the file, its images beside it."""
    rows = ["path,label,split"]
    for c, (label, images) in enumerate({"ash": 73, "elm": 46, "yew": 36}.items()):
        for n in range(images):
            save_image(tmp_path / label / f"{n}.png", 100 * c + n)
            test = n < images - {"ash": 23, "elm": 23, "yew": 2}[label]
            rows.append(f"{label}/{n}.png,{label},{'test' if test else 'train'}")
    (tmp_path / "trees.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "trees.csv"


def check(source: Path, **settings) -> Findings:
    return check_source(DataConfig(str(source), **settings), verbose=False)


def test_a_sound_source_is_counted(table, capsys):
    assert main(["data", "check", str(table)]) == 0
    text = capsys.readouterr().out
    assert "trees: 3 classes: ash, elm, yew" in text
    assert (
        "train: 48 images; largest class 23 (ash), smallest 2 (yew), imbalance 11.5; "
        "classes with few images: 1 below 5, 1 below 20" in text
    )
    assert "test: 107 images" in text
    assert "files: 155 of 155 exist, 155 decoded and compared" in text
    assert "no problem found" in text


def test_every_problem_is_named_at_once(table, capsys):
    for n in range(1, 13):
        (table.parent / "ash" / f"{n}.png").unlink()
    (table.parent / "elm" / "1.png").write_bytes(b"no image")
    with table.open("a") as file:
        file.write("yew/1.png,yew,train\n")
    assert main(["data", "check", str(table)]) == 1
    text = capsys.readouterr().out
    assert "files that do not exist (12): " in text
    assert "9.png" in text
    assert "and 2 more" in text
    assert "images that cannot be read (1): " in text
    assert "elm/1.png: not an image file" in text
    assert "paths that are listed in more than one split (1): " in text
    assert "train: 49 images" in text
    assert "no problem found" not in text


def test_images_are_decoded_by_habit_of_the_source_or_by_request(table):
    (table.parent / "elm" / "1.png").write_bytes(b"no image")
    assert not check(table, check="exists").problems
    assert check(table).problems


def test_a_made_test_split_is_counted_as_a_training_would_make_it(make_folder):
    findings = check(make_folder({"a": 20, "b": 10}))
    assert {split: counts.tolist() for split, counts in findings.counts.items()} == {
        "train": [16, 8],
        "test": [4, 2],
    }


def test_images_in_memory_have_no_files(capsys):
    assert main(["data", "check", "digits-lt"]) == 0
    assert "imbalance 33.5" in capsys.readouterr().out


def test_files_of_a_users_function_that_do_not_exist(tmp_path, monkeypatch):
    files = (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    Image.new("RGB", (8, 8)).save(files[0])
    split = Split(torch.tensor([0, 1]), torch.arange(2), None, files)
    own = Dataset("own", ("a", "b"), split, None, None, 32)
    monkeypatch.setitem(sys.modules, "own_data", SimpleNamespace(source=lambda config: own))
    findings = check("own_data.source")
    assert findings.checked == "1 of 2 exist"
    assert len(findings.problems) == 1
    assert files[1] in findings.problems[0]


def test_errors_name_what_is_wrong(capsys):
    assert main(["data", "check", "nowhere"]) == 2
    assert "source 'nowhere' is unknown" in capsys.readouterr().err
    assert main(["data", "mend", "digits-lt"]) == 2
    assert "longtail data needs one of these commands, got ['mend']" in capsys.readouterr().err


def photograph(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Smooth random colours, unlike those of other seeds."""
    noise = np.random.RandomState(seed).randint(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of 100 training and 60 test photographs each, all different."""
    for n in range(320):
        split, label = "train" if n < 200 else "test", ("cat", "dog")[n % 2]
        path = tmp_path / "set" / split / label / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(n).save(path)
    return tmp_path / "set"


def test_different_photographs_are_not_taken_for_the_same(photographs):
    findings = check(photographs)
    assert (findings.problems, findings.warnings) == ((), ())


def test_the_same_file_in_two_splits_and_in_two_classes_is_a_problem(photographs):
    for source, target in (("train/cat/0", "test/cat/0"), ("train/cat/2", "train/dog/2")):
        content = (photographs / f"{source}.png").read_bytes()
        (photographs / f"{target}.png").write_bytes(content)
    found = check(photographs).problems
    assert len(found) == 2
    assert found[0].startswith("the same file in two splits (1): test/cat/0.png (cat, test) and")
    assert "in two classes (1): " in found[1]
    assert "train/cat/2.png (cat, train)" in found[1]
    assert "train/dog/2.png (dog, train)" in found[1]


def test_a_file_that_is_given_twice_in_a_class_is_a_warning(photographs):
    content = (photographs / "train/cat/0.png").read_bytes()
    for name in ("copy", "copy of copy"):
        (photographs / f"train/cat/{name}.png").write_bytes(content)
    findings = check(photographs)
    assert not findings.problems
    assert len(findings.warnings) == 1
    assert "the same file more than once in a class and split (2)" in findings.warnings[0]
    assert "no problem found" not in str(findings)


@pytest.mark.parametrize("kind", ["jpeg", "smaller", "larger", "cropped", "grey-ish"])
def test_nearly_the_same_picture_is_found(photographs, kind):
    image = photograph(0)
    changed = {
        "jpeg": image,
        "smaller": image.resize((48, 36)),
        "larger": image.resize((200, 150)),
        "cropped": image.crop((2, 1, 94, 71)),
        "grey-ish": image.filter(ImageFilter.GaussianBlur(1)).point(lambda level: level * 0.9),
    }[kind]
    changed.save(photographs / "test" / "cat" / "copy.jpg", quality=70)
    findings = check(photographs)
    assert not findings.problems
    assert [warning.partition(" (")[0] for warning in findings.warnings] == [
        "nearly the same picture in two splits"
    ]
    assert "test/cat/copy.jpg (cat, test) and train/cat/0.png (cat, train)" in findings.warnings[0]


def test_pictures_of_every_mode(photographs):
    folder = photographs / "train" / "cat"
    photograph(1000).convert("CMYK").save(folder / "cmyk.jpg")
    photograph(1001).convert("RGBA").save(folder / "transparent.webp")
    photograph(1002).save(folder / "moving.gif", save_all=True, append_images=[photograph(1)])
    photograph(1003, (1, 1)).save(folder / "dot.png")
    levels = np.random.RandomState(0).rand(30, 40)
    Image.fromarray((65535 * levels).astype(np.uint16)).save(folder / "16 bits.png")
    Image.fromarray(levels[::-1].astype(np.float32)).save(folder / "floats.tiff")
    findings = check(photographs)
    assert (findings.problems, findings.warnings) == ((), ())
    assert findings.counts["train"].tolist() == [106, 100]


def test_pictures_that_cannot_be_read_are_named_with_the_reason(make_folder, huge_png):
    top = make_folder({"a": 5, "b": 5})
    huge_png(top / "a" / "huge.png")
    Image.fromarray(np.full((30, 20), 7.5, np.float32)).save(top / "a" / "floats.tiff")
    (top / "b" / "two\nlines.png").write_bytes(b"no image")
    (found,) = check(top).problems
    assert "images that cannot be read (3): " in found
    assert "huge.png: too large: " in found
    assert "floats.tiff: levels of a F image must lie in [0, 1], got 7.5 to 7.5" in found
    assert r"two\nlines.png: not an image file" in found
    assert found.isprintable()


def test_formats_that_are_not_read_are_named(make_folder, monkeypatch):
    monkeypatch.setattr("longtail.data.formats.reads_heif", lambda: False)
    top = make_folder({"a": 5, "b": 5})
    for name in ("drawing.svg", "camera.CR2", "phone.heic"):
        (top / "a" / name).write_bytes(b"")
    found = check(top).warnings[0]
    assert "left out 3 files" in found
    assert "vector graphics (.svg) are not supported; export them as PNG" in found
    assert "camera raw files (.cr2) are not supported; export as JPEG" in found
    assert "pip install 'longtail[heif]'" in found


def test_names_of_all_kinds(make_folder):
    top = make_folder({'-a, "b" c': 4, "two\nlines": 4})
    names = ["a b.png", 'say "hi".png', "a,b;c.png", "-dash.png", "two\nlines.png"]
    for n, name in enumerate(names):
        photograph(n).save(top / '-a, "b" c' / name)
    findings = check(top)
    assert findings.problems == ()
    assert r"""2 classes: -a, "b" c, 'two\nlines'""" in str(findings)
    photograph(4).save(top / "two\nlines" / "copy.png")
    found = check(top).problems
    assert "in two classes (1): " in found[-1]
    assert all(problem.isprintable() for problem in found)


def test_pictures_of_one_colour_are_not_compared(photographs):
    for n, colour in enumerate(("black", "white", "red")):
        Image.new("RGB", (20, 20), colour).save(photographs / "train" / "cat" / f"flat{n}.png")
    assert not check(photographs).warnings


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("caf\u00e9", "cafe\u0301"),
        ("red fox", "red\u00a0fox"),
        ("owl", "owl\u200b"),
        ("1", "1.0"),
        ("01", "1"),
        ("red fox", "red_fox"),
        (" owl", "owl"),
    ],
)
def test_labels_that_look_alike(make_folder, names):
    findings = check(make_folder({names[0]: 5, names[1]: 5, "other": 5}))
    found = [problem for problem in findings.problems if "look alike (1): " in problem]
    assert len(found) == 1
    assert found[0].isprintable()


def test_labels_that_do_not_look_alike(make_folder):
    findings = check(make_folder({"1": 5, "10": 5, "1.5": 5, "cat": 5, "cats": 5}))
    assert not findings.problems


def test_splits_that_are_too_small_to_evaluate(make_folder):
    found = check(make_folder({"a": 60, "b": 15, "c": 2})).warnings
    assert "the test split has 16 images: its accuracy is only known to about 25 perc" in found[0]
    assert "classes with 3 test images or fewer (2): b (3), c (1)" in found[1]


def test_what_is_left_out_and_how_folders_are_read_is_said(make_folder):
    make_folder({"a": 60, "b": 600}, "set/Train")
    make_folder({"a": 60, "b": 60}, "set/valid")
    findings = check(make_folder({"a": 2}, "set/extra").parent)
    assert findings.notes == ("train is read from Train", "val is read from valid")
    assert "left out folders next to train, val and test (1): extra" in findings.warnings[0]
    assert "no problem found" not in str(findings)


def test_progress_from_the_start(photographs, capsys):
    check_source(DataConfig(str(photographs)))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"reading {photographs} ...", "reading images: 320", "comparing images: 320"]
