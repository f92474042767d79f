import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from longtail.report import photographs, write_report
from longtail.report.photographs import Thumbnails


@pytest.fixture
def pictures(tmp_path):
    """Test and training images of three classes, as files; returns paths by test image."""
    generator = np.random.default_rng(0)
    for split, count in (("test", 60), ("train", 9)):
        (tmp_path / split).mkdir()
        for number in range(count):
            pixels = generator.integers(0, 256, (40, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{number}.png")
    return tmp_path


@pytest.fixture
def run(made_up_run, pictures):
    names = ["cat", "dog", "bird"]
    examples = {
        name: [str(pictures / "train" / f"{3 * c + n}.png") for n in range(3)]
        for c, name in enumerate(names)
    }
    paths = [str(pictures / "test" / f"{number}.png") for number in range(60)]
    made = made_up_run(classes=3, names=names, strength=1, paths=paths, examples=examples)
    return made_up_run(
        classes=3, names=names, strength=1, paths=paths, examples=examples, uniform=made.scores
    )


def sources(page):
    return re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)


def page_of(run, tmp_path, **more):
    return write_report([run], tmp_path / "page.html", **more).read_text(encoding="utf-8")


def test_surest_mistakes_come_first(run):
    cards = photographs.surest_mistakes(run, Thumbnails())
    wrong = (~run.scores.correct).nonzero().flatten()
    best = wrong[run.scores.confidence[wrong].argmax()]
    assert cards[0]["path"] == run.paths[best]
    assert cards[0]["true"] == run.class_names[run.scores.labels[best]]
    assert cards[0]["predicted"] == run.class_names[run.scores.predicted[best]]
    shown = [float(card["confidence"]) for card in cards]
    assert shown == sorted(shown, reverse=True)
    assert len(cards) == photographs.MISTAKES


def test_confused_pairs_have_training_images_of_both_classes(run):
    first = photographs.confused_examples(run, Thumbnails())[0]
    titles = [title for title, _ in first["groups"]]
    true, predicted = first["pair"].true, first["pair"].predicted
    assert titles == [
        f"training images of {true}",
        f"{true} mistaken for {predicted}",
        f"training images of {predicted}",
    ]
    assert [image["path"] for image in first["groups"][0][1]] == list(run.examples[true])


def test_thumbnails_are_small_jpegs(run, tmp_path):
    page = page_of(run, tmp_path)
    found = sources(page)
    assert len(found) > photographs.MISTAKES
    for source in found:
        image = Image.open(io.BytesIO(base64.b64decode(source)))
        assert image.format == "JPEG"
        assert max(image.size) == photographs.SIDE
    assert "<h4>Labels to check</h4>" in page


def test_without_pictures(run, tmp_path):
    page = page_of(run, tmp_path, pictures=False)
    assert not sources(page)
    assert "<h2>Mistakes</h2>" not in page


def test_missing_and_broken_files_are_passed_over_and_said(run, pictures, tmp_path):
    mistakes = photographs.surest_mistakes(run, Thumbnails())
    gone, broken = mistakes[0]["path"], mistakes[1]["path"]
    (pictures / "test" / gone.rpartition("/")[2]).unlink()
    (pictures / "test" / broken.rpartition("/")[2]).write_bytes(b"no image")
    again = photographs.surest_mistakes(run, Thumbnails())
    assert [card["path"] for card in again[:10]] == [card["path"] for card in mistakes[2:]]
    page = page_of(run, tmp_path)
    assert "2 image files are missing or unreadable and left out" in page
    for path in pictures.rglob("*.png"):
        path.unlink()
    page = page_of(run, tmp_path)
    assert not sources(page)
    assert "missing or unreadable" in page


def test_only_regular_files_are_opened(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits for ever
    thumbnails = Thumbnails()
    for path in (str(tmp_path / "pipe.png"), str(tmp_path), "/dev/zero", "digits/1"):
        assert thumbnails.source(path) is None
        assert path in thumbnails.unreadable


def test_a_page_holds_two_megabytes_of_thumbnails_at_most(run, tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "BUDGET", 40_000)
    page = page_of(run, tmp_path)
    assert 20_000 < sum(len(f"data:image/jpeg;base64,{s}") for s in sources(page)) <= 40_000
    assert "more images are left out to keep the page small" in page


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "F", "P", "RGBA", "1"])
def test_images_of_any_mode(mode, tmp_path):
    image = (
        Image.new("L", (1, 900), 1).convert(mode) if mode != "I;16" else Image.new(mode, (1, 900))
    )
    path = tmp_path / ("x.tif" if mode in ("F", "CMYK") else "x.png")
    image.save(path)
    assert Thumbnails().source(str(path)).startswith("data:image/jpeg;base64,")


def test_a_single_pixel_and_the_first_frame(tmp_path):
    red, blue = (Image.new("RGB", (1, 1), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "x.gif", save_all=True, append_images=[blue])
    source = Thumbnails().source(str(tmp_path / "x.gif"))
    content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        level = image.convert("RGB").getpixel((0, 0))
    assert level[0] > 200 > 50 > level[2]


@pytest.mark.parametrize("name", ["a.svg", "a.NEF", "a.heic", "a.tiff", "a.png"])
def test_files_without_a_thumbnail(name, tmp_path, huge_png, monkeypatch):
    monkeypatch.setattr("longtail.data.formats.reads_heif", lambda: False)
    path = tmp_path / name
    if name == "a.png":
        huge_png(path)
    elif name == "a.tiff":
        Image.fromarray(np.full((3, 2), 7.5, np.float32)).save(path)
    else:
        Image.new("RGB", (9, 9)).save(path, "PNG")  # it would be read under another name
    thumbnails = Thumbnails()
    assert thumbnails.source(str(path)) is None
    assert thumbnails.unreadable == {str(path)}
