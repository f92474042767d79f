"""Predictions for files: a row for each, whatever is wrong with it."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import longtail
from longtail import api
from longtail.cli import main
from longtail.data import Dataset, Split
from longtail.files import write_text
from longtail.training import Run
from longtail.training.reference import FILE, Reference, keep_reference, spread_rows

COLOURS = {"red": 12, "green": 9, "blue": 5}


def coloured(channel: int, seed: int, shape: tuple[int, ...] = (40, 48, 3)) -> Image.Image:
    """Noise in which one channel is stronger."""
    levels = np.random.default_rng(seed).integers(0, 90, shape)
    levels[..., channel] += 120
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "colours"
    for base, split in ((0, "train"), (1000, "test")):
        for channel, (name, count) in enumerate(COLOURS.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count if split == "train" else 4):
                coloured(channel, base + 100 * channel + number).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module", params=["head", "network"])
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory):
    """A head on fixed features, and a small network that was trained."""
    out = tmp_path_factory.mktemp("runs") / request.param
    kind = {"tune": "head"} if request.param == "head" else {"backbone": "smallnet", "epochs": 2}
    copy = shutil.copytree(data, out.parent / "data")
    longtail.train(
        {"source": str(copy), "image_size": 32},
        "logit_adjust",
        out=out,
        verbose=False,
        device="cpu",
        precision="32-true",
        batch_size=13,
        **kind,
    )
    shutil.rmtree(copy)  # a model is used where its training data are not
    return Run(out)


@pytest.fixture
def photos(data: Path, tmp_path: Path) -> Path:
    """Three good pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for channel, name in enumerate(COLOURS):
        coloured(channel, 7 + channel).save(folder / f"{name}.png")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_bad_file_costs_one_row(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "empty.png").write_bytes(b"")
    half = (photos / "red.png").read_bytes()
    (photos / "half.png").write_bytes(half[: len(half) // 2])
    out = tmp_path / "out.csv"
    assert main(["predict", str(run.folder), str(photos), "--top", "2", "--out", str(out)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"predictions of 3 images written: {out}; 3 files could not be read, see the column error"
    )
    rows = rows_of(out)
    assert [Path(row["path"]).stem for row in rows] == sorted(
        ["red", "green", "blue", "broken", "empty", "half"]
    )
    for row in rows:
        if Path(row["path"]).stem in COLOURS:
            first, second = float(row["probability"]), float(row["probability_2"])
            assert float(row["margin"]) == pytest.approx(first - second, abs=2e-6)
            assert 0 < float(row["unlike"]) <= 1
            assert row["error"] == ""
        else:
            assert row["error"]
            assert row["class"] == row["margin"] == row["unlike"] == ""
    assert {row["error"] for row in rows} >= {"not an image file", "the file is empty"}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_formats_agree_with_predictions_in_memory(
    suffix: str, run: Run, photos: Path, tmp_path: Path
) -> None:
    (photos / "zzz.jpg").write_bytes(b"no picture")
    out = tmp_path / f"out.{suffix}"
    found = api.predict(run, photos, out=out, top=5, verbose=False)  # of three classes
    assert (len(found), found.failed) == (3, 1)
    if suffix == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = rows_of(out)
    names = ["path", "class", "probability", "class_2", "probability_2", "class_3"]
    assert list(rows[0]) == [*names, "probability_3", "margin", "unlike", "error"]
    wanted = run.predict([photos / f"{name}.png" for name in sorted(COLOURS)])
    for row, (path, top), unlike in zip(rows, wanted.top(3), wanted.unlike, strict=False):
        assert row["path"] == path
        assert row["class"] == top[0][0]
        assert float(row["probability_2"]) == pytest.approx(top[1][1], abs=2e-6)
        assert float(row["unlike"]) == pytest.approx(float(unlike), abs=2e-6)
        assert row["error"] in ("", None)
    assert rows[3]["error"] == "not an image file"
    assert rows[3]["class"] in ("", None)


def test_unknown_format_is_refused_first(run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.csv, .*got .*out\.xlsx"):
        api.predict(run, photos, out=tmp_path / "out.xlsx")
    assert not list(tmp_path.glob("out*"))


def test_what_a_folder_passes_over_is_named(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "notes.txt").write_text("")
    (photos / "drawing.svg").write_text("<svg/>")
    (photos / "camera.CR2").write_bytes(b"II*\0")
    (photos / "@eaDir").mkdir()
    coloured(0, 0).save(photos / "@eaDir" / "thumbnail.png")
    coloured(0, 0).save(photos / ".hidden.png")
    with pytest.warns(UserWarning, match=r"skipped 3 files .* not images: .*\.txt \(1\).*PNG"):
        found = api.predict(run, photos, out=tmp_path / "out.csv")
    assert (len(found), found.failed) == (3, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.svg", "vector graphics (.svg) are not supported; export them as PNG"),
        ("a.nef", "camera raw files (.nef) are not supported; export as JPEG"),
        ("a.txt", "not an image file"),
        ("none.png", "No such file or directory"),
        ("sub", "Is a directory"),
    ],
)
def test_a_file_of_another_kind_that_is_named(
    name: str, reason: str, run: Run, photos: Path, tmp_path: Path
) -> None:
    (photos / "a.svg").write_text("<svg/>")
    (photos / "a.nef").write_bytes(b"II*\0")
    (photos / "a.txt").write_text("notes")
    (photos / "sub").mkdir()
    table = tmp_path / "table.csv"
    table.write_text(f"path\nphotos/red.png\nphotos/{name}\n")
    for given in ([photos / "red.png", photos / name], table):
        if name == "sub" and given is not table:
            continue  # a folder without an image
        found = api.predict(run, given, out=tmp_path / "out.csv")
        assert (len(found), found.failed) == (1, 1)
        good, bad = rows_of(tmp_path / "out.csv")
        assert (good["error"], bad["error"]) == ("", reason)


def test_heic_is_read_or_says_what_it_needs(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr("longtail.data.formats.reads_heif", lambda: False)
    api.predict(run, [photos / "a.heic", photos / "red.png"], out=tmp_path / "out.csv")
    assert "pip install 'longtail[heif]'" in rows_of(tmp_path / "out.csv")[0]["error"]


def test_pictures_of_every_mode(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "modes"
    folder.mkdir()
    image = coloured(0, 3)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.full((30, 20), 40000, np.uint16)).save(folder / "16-bit.png")
    Image.fromarray(np.full((30, 20), 0.5, np.float32)).save(folder / "float.tiff")
    Image.fromarray(np.full((30, 20), 7.5, np.float32)).save(folder / "floats-above-1.tiff")
    image.save(folder / "animated.gif", save_all=True, append_images=[coloured(1, 4)])
    image.crop((0, 0, 1, 1)).save(folder / "1x1.png")
    image.convert("RGBA").save(folder / "transparent.webp")
    found = api.predict(run, folder, out=tmp_path / "out.csv")
    assert (len(found), found.failed) == (6, 1)
    bad = [row for row in rows_of(tmp_path / "out.csv") if row["error"]]
    assert "levels of a F image must lie in [0, 1], got 7.5 to 7.5" in bad[0]["error"]


def test_a_picture_too_large_to_decode_costs_one_row(
    run: Run, photos: Path, tmp_path: Path, huge_png: Callable[[Path], None]
) -> None:
    huge_png(photos / "huge.png")
    found = api.predict(run, photos, out=tmp_path / "out.csv")
    assert (len(found), found.failed) == (3, 1)
    (bad,) = [row for row in rows_of(tmp_path / "out.csv") if row["error"]]
    assert bad["error"].startswith("too large: ")


NAMES = ["a b.png", 'say "hi".png', "a,b;c.png", "-dash.png", "two\nlines.png", "süß 日本.png"]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_names_of_all_kinds(suffix: str, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    for name in NAMES:
        coloured(0, 1).save(folder / name)
    out = tmp_path / f"out.{suffix}"
    api.predict(run, folder, out=out)
    if suffix == "parquet":
        paths = pq.read_table(out)["path"].to_pylist()
    elif suffix == "jsonl":
        with out.open(encoding="utf-8") as file:
            paths = [json.loads(line)["path"] for line in file]
    else:
        paths = [row["path"] for row in rows_of(out)]
    assert sorted(Path(path).name for path in paths) == sorted(NAMES)


@pytest.mark.parametrize("run", ["network"], indirect=True)
def test_names_of_all_kinds_as_words(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [*NAMES, "[1, 2].png", "{a: b}.png", "# c.png", "null", "1e3", "*.png"]
    for name in names:
        coloured(0, 1).save(name, "PNG")
    out = tmp_path / "a, 'b'.jsonl"
    for given in (names, names[-3:-2], names[6:7]):
        assert main(["predict", str(run.folder), *given, "--out", str(out)]) == 0
        with out.open(encoding="utf-8") as file:
            assert [json.loads(line)["path"] for line in file] == given


def test_a_name_that_is_not_utf8(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "red.png", os.fsencode(photos) + b"/\xff.png")
    found = api.predict(run, photos, out=tmp_path / "out.csv")
    assert (len(found), found.failed) == (4, 0)
    assert rows_of(tmp_path / "out.csv")[-1]["path"].endswith("\\udcff.png")


@pytest.mark.parametrize("run", ["network"], indirect=True)
def test_cells_that_a_spreadsheet_would_run(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    shutil.move("red.png", "=1+1.png")
    api.predict(run, "=1+1.png", out=tmp_path / "out.csv")
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == ["'=1+1.png"]
    api.predict(run, "=1+1.png", out=tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["path"] == "=1+1.png"


def test_a_table_of_paths(run: Run, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("note;file\nx;photos/red.png\ny;gone/red.png\nz;photos/red.png\nw;\n")
    out = tmp_path / "out.csv"
    words = ["predict", str(run.folder), str(table), "--path-column", "file", "--out", str(out)]
    assert main(words) == 1
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [
        "photos/red.png",
        "gone/red.png",
        "photos/red.png",
        "",
    ]
    assert rows[1]["error"] == "No such file or directory"
    assert {**rows[0]} == {**rows[2]}  # the same picture twice: two rows, as asked
    assert rows[3]["error"] == "Is a directory"
    moved = shutil.move(table, tmp_path / "photos" / "table.csv")
    found = api.predict(run, moved, out=out, path_column="file", root=tmp_path)
    assert (len(found), found.failed) == (2, 2)


def test_a_table_of_urls(run: Run, photos: Path, tmp_path: Path) -> None:
    content = (photos / "red.png").read_bytes()
    fsspec.filesystem("memory").pipe_file("memory://photos/red.png", content)
    table, out = tmp_path / "table.csv", tmp_path / "out.jsonl"
    table.write_text("path\nphotos/red.png\nmemory://photos/red.png\nmemory://photos/gone.png\n")
    found = api.predict(run, table, out=out)
    here, there, gone = map(json.loads, out.read_text().splitlines())
    assert {**there, "path": here["path"]} == here
    assert gone["error"] == "there is no such file"
    assert (len(found), found.failed) == (2, 1)


def test_a_table_without_that_column(run: Run, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("Path,label\na.png,b\n")
    with pytest.raises(ValueError, match="did you mean --path-column 'Path'"):
        api.predict(run, tmp_path / "table.csv", out=tmp_path / "out.csv")
    (tmp_path / "table.csv").write_text("file,label\na.png,b\n")
    with pytest.raises(ValueError, match="has no path_column 'path'; its columns are file, label"):
        api.predict(run, tmp_path / "table.csv", out=tmp_path / "out.csv")
    with pytest.raises(ValueError, match="path_column and root are for tables"):
        api.predict(run, tmp_path, out=tmp_path / "out.csv", root=tmp_path)


def test_the_same_picture_given_twice_has_two_rows(run: Run, photos: Path, tmp_path: Path) -> None:
    found = api.predict(run, [photos / "red.png", photos], out=tmp_path / "out.csv")
    assert len(found) == 4


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, message in (
        ([tmp_path / "no", tmp_path / "nor"], "no such file or folder: .*no, .*nor"),
        ([], "no such file or folder: none given"),
        ([tmp_path / "empty"], "no image file in"),
    ):
        with pytest.raises(ValueError, match=message):
            api.predict(run, given, out=tmp_path / "out.csv")


def test_an_output_that_cannot_be_written(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "out.csv"
    for out, status, message in (
        (below, 2, f"error: out of predict must be in a folder, but {below.parent} is a file"),
        (Path("/dev/full"), 1, "error: cannot write /dev/full: "),
    ):
        assert main(["predict", str(run.folder), str(photos), "--out", str(out)]) == status
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("run", ["network"], indirect=True)
def test_a_full_disk_leaves_no_half_file(
    run: Run,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("what was there before\n")
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "photos/red.png\n" * 100)
    with full_disk(4000):
        status = main(["predict", str(run.folder), str(table), "--out", str(out)])
    assert status == 1
    assert f"error: cannot write {out}: File too large" in capsys.readouterr().err
    assert out.read_text() == "what was there before\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "photos", "table.csv"]


def test_a_full_disk_leaves_no_half_reference(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    reference = Reference.of(torch.ones(100, 30), torch.ones(9, 30))
    with full_disk(1000), pytest.raises(OSError, match=f"cannot write .*{FILE}: .*File too large"):
        reference.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["network"], indirect=True)
def test_report_and_export_need_no_training_data(run: Run, tmp_path: Path) -> None:
    page = api.report(run.folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h2>Metrics</h2>" in page
    assert "data:image/jpeg" not in page
    weights = api.export(run.folder, "safetensors", tmp_path / "weights.safetensors")
    assert weights.stat().st_size > 1000


def test_rows_are_written_as_they_come(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "photos/red.png\n" * 700)
    sizes = []
    batches = longtail.training.classifier.Classifier.batches

    def watched(classifier: object, split: Split):
        for batch in batches(classifier, split):
            yield batch
            sizes.append(len(batch.logits))

    monkeypatch.setattr("longtail.training.classifier.Classifier.batches", watched)
    api.predict(run, table, out=tmp_path / "out.csv")
    assert sum(sizes) == 700
    assert max(sizes) <= 256  # what is in memory at once


def test_what_is_unlike_all_training_images(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for seed in range(6):
        coloured(seed % 3, 50 + seed).save(folder / f"like-{seed}.png")
    Image.new("RGB", (40, 40), "white").save(folder / "white.png")
    found = api.predict(run, folder, verbose=False)
    assert isinstance(found, longtail.training.Classified)
    likes, white = found.unlike[:6], found.unlike[6]
    assert white < likes.median()
    assert white <= 2 / 13  # there are 12 held-out images


def test_a_run_without_a_reference(run: Run, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "run")
    (copy / FILE).unlink()
    api.predict(copy, photos, out=tmp_path / "out.csv")
    assert [row["unlike"] for row in rows_of(tmp_path / "out.csv")] == ["", "", ""]
    Reference.of(torch.ones(2, 3), torch.ones(2, 3)).write(copy)
    with pytest.raises(ValueError, match=r"features must be .* got \(2, 3\) and \(2,\)"):
        api.predict(copy, photos)
    write_text(copy / FILE, "damaged")
    with pytest.raises(ValueError, match=rf"{FILE} is not a valid reference file"):
        api.predict(copy, photos)


def test_images_that_are_gone_cost_the_reference_alone(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "run")
    (copy / FILE).unlink()
    gone = Split(torch.tensor([0, 1, 2]), torch.arange(3), None, ("a.png", "b.png", "c.png"))
    dataset = Dataset("gone", ("blue", "green", "red"), gone, None, gone, image_size=32)
    with pytest.warns(UserWarning, match=f"no {FILE} is written: [36] of [36] images cannot"):
        keep_reference(Run(copy), dataset)
    assert not (copy / FILE).exists()


def test_share_of_held_out_images_that_are_as_far() -> None:
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(200, 8, generator=generator) + 3
    held_out = torch.randn(99, 8, generator=generator) + 3
    reference = Reference.of(stored, held_out)
    far = -torch.ones(1, 8)
    assert float(reference.unlike(far)) == pytest.approx(1 / 100)
    # The held-out images are spread evenly, each counted with itself.
    own = reference.unlike(held_out).sort().values
    # Sums in another order may put one of them on the other side of its own distance.
    torch.testing.assert_close(own, torch.arange(2, 101) / 100, atol=0.0101, rtol=0)


def test_the_reference_has_every_class() -> None:
    labels = torch.tensor([0] * 500 + [1] * 40 + [2])
    counts = torch.bincount(labels[spread_rows(labels, 100)])
    assert counts.tolist()[2] == 1
    assert counts.sum() <= 100
    assert counts[1] >= 20
    many = torch.arange(300)
    assert len(spread_rows(many, 100)) == 300  # at least one of each
