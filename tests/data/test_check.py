from pathlib import Path

import pytest

from longtail.cli import main
from longtail.data import DataConfig, check_source


@pytest.fixture
def table(tmp_path: Path, save_image) -> Path:
    """Three classes in a table; returns the file, its images beside it."""
    rows = ["path,label,split"]
    for label, images in {"ash": 24, "elm": 6, "yew": 3}.items():
        for n in range(images):
            save_image(tmp_path / label / f"{n}.png", n)
            rows.append(f"{label}/{n}.png,{label},{'test' if n == 0 else 'train'}")
    (tmp_path / "trees.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "trees.csv"


def test_a_sound_source_is_counted(table, capsys):
    assert main(["data", "check", str(table)]) == 0
    text = capsys.readouterr().out
    assert "trees: 3 classes" in text
    assert (
        "train: 30 images; largest class 23 (ash), smallest 2 (yew), imbalance 11.5; "
        "classes with few images: 1 below 5, 2 below 20" in text
    )
    assert "test: 3 images" in text
    assert "files: 33 looked for, 33 decoded" in text
    assert "no problem found" in text


def test_every_problem_is_named_at_once(table, capsys):
    for n in range(1, 13):
        (table.parent / "ash" / f"{n}.png").unlink()
    (table.parent / "elm" / "1.png").write_bytes(b"no image")
    with table.open("a") as file:
        file.write("yew/1.png,yew,test\n")
    assert main(["data", "check", str(table)]) == 1
    text = capsys.readouterr().out
    assert "files that do not exist (12): " in text
    assert "9.png" in text
    assert "and 2 more" in text
    assert "images that cannot be read (1): " in text
    assert "elm/1.png: not an image file" in text
    assert "paths that are listed in more than one split (1): " in text
    assert "train: 30 images" in text


def test_images_are_decoded_by_habit_of_the_source_or_by_request(table):
    (table.parent / "elm" / "1.png").write_bytes(b"no image")
    assert not check_source(DataConfig(str(table), check="exists")).problems
    assert check_source(DataConfig(str(table))).problems


def test_a_made_test_part_is_counted_as_a_training_would_make_it(make_folder):
    findings = check_source(DataConfig(str(make_folder({"a": 20, "b": 10}))))
    assert {part: counts.tolist() for part, counts in findings.counts.items()} == {
        "train": [16, 8],
        "test": [4, 2],
    }


def test_images_in_memory_have_no_files(capsys):
    assert main(["data", "check", "digits-lt"]) == 0
    assert "imbalance 33.5" in capsys.readouterr().out


def test_errors_name_what_is_wrong(capsys):
    assert main(["data", "check", "nowhere"]) == 2
    assert "source 'nowhere' is unknown" in capsys.readouterr().err
    assert main(["data", "mend", "digits-lt"]) == 2
    assert "longtail data needs one of these commands, got ['mend']" in capsys.readouterr().err
