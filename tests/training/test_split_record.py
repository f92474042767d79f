"""A run that is resumed knows the images that it was started with."""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from longtail.cli import main
from longtail.data import DataConfig, Dataset, Split, load, write_shards
from longtail.errors import InputError
from longtail.settings import from_keywords, to_config
from longtail.tasks import train
from longtail.training import Config, Run, loop, split_record
from longtail.training.split_record import check_split, read_split, write_split

# What is said of so few images and steps.
pytestmark = pytest.mark.filterwarnings("ignore:.*images or fewer", "ignore:.*one class only")

COUNTS = {"ant": 12, "bee": 8, "cat": 6}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def make_folder(root: Path) -> Path:
    """Small images in a folder for each class, without a test part."""
    for c, (name, count) in enumerate(COUNTS.items()):
        for number in range(count):
            picture(root / name / f"{number}.png", 100 * c + number)
    return root


def as_table(root: Path) -> Path:
    lines = [f"{p.relative_to(root.parent)},{p.parent.name}" for p in sorted(root.rglob("*.png"))]
    table = root.with_suffix(".csv")
    table.write_text("\n".join(["path,label", *lines]) + "\n")
    return table


def settings(source: Path, **changes: object) -> Config:
    quick = {"epochs": 3, "batch_size": 8, "precision": "32-true", "device": "cpu"}
    config = to_config(from_keywords(str(source), "ce", backbone="smallnet", **quick))
    return replace(config, pretrained=False, **changes)


class PowerCutError(Exception):
    """Ends a training."""


def interrupt(config: Config, folder: Path, step: int = 3, dataset: object = None) -> Path:
    """Trains some steps: past the first checkpoint, and not to the end."""
    train_step, steps = loop.train_step, 0

    def counted(*args: object) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps > step:
            raise PowerCutError
        return train_step(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        with pytest.raises(PowerCutError):
            train(config, folder, dataset=dataset)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that refuses to resume, before it has written anything."""
    before = content_of(folder)
    assert main(words) == 2
    assert content_of(folder) == before
    return capsys.readouterr().err


def replace_one(root: Path) -> str:
    picture(root / "bee" / "3.png", 999)
    return "images whose files have changed (1): {}/bee/3.png"


def remove_one(root: Path) -> str:
    (root / "bee" / "3.png").unlink()
    return "images removed (1): {}/bee/3.png"


def add_some(root: Path) -> str:
    for number in range(12):
        picture(root / "ant" / f"new{number}.png", 900 + number)
    return "images added (12): {0}/ant/new0.png, {0}/ant/new1.png, {0}/ant/new10.png"


def move_one(root: Path) -> str:
    (root / "bee" / "3.png").rename(root / "cat" / "30.png")
    return "images added (1): {}/cat/30.png"


def rename_class(root: Path) -> str:
    (root / "ant").rename(root / "wasp")
    return "classes added (1): wasp"


def add_class(root: Path) -> str:
    for number in range(4):
        picture(root / "auk" / f"{number}.png", 800 + number)
    return "classes added (1): auk"


CHANGES = [replace_one, remove_one, add_some, move_one, rename_class, add_class]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_folder_are_listed_and_refused(
    change: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(tmp_path / "pets")
    run = interrupt(settings(data), tmp_path / "run")
    wanted = change(data).format(data)
    said = refused(["train", "--resume", "--out", str(run)], run, capsys)
    assert wanted in said
    assert (
        f"cannot be resumed, its data have changed since it was started ({run}/split.csv)" in said
    )
    assert ("--accept-replaced" in said) == (change is replace_one)


def test_the_folder_of_the_run_is_enough_to_resume_it(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "pets")
    whole = train(settings(data), tmp_path / "whole")
    run = interrupt(settings(data), tmp_path / "run")
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["train", "--resume", "--out", str(run)]) == 0
    resumed = longtail.train(out=copy, resume=True, verbose=False)
    for one in (Run(run), resumed):
        assert torch.equal(one.predictions().logits, whole.predictions().logits)


def test_other_settings_are_refused_without_data_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupt(settings(make_folder(tmp_path / "pets")), tmp_path / "run")
    words = ["train", "--resume", "--out", str(run)]
    said = refused([*words, "--epochs", "7", "--method", "focal"], run, capsys)
    assert "epochs was 3 and is 7" in said
    assert "method.name was 'ce' and is 'focal'" in said
    assert "'head'" not in said  # in which they agree
    assert "not a run folder" in refused([*words[:-1], str(tmp_path)], run, capsys)
    with pytest.raises(InputError, match="data must be given"):
        longtail.train(out=run)


def test_a_copy_of_the_same_content_is_the_same(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "pets")
    run = interrupt(settings(data), tmp_path / "run")
    for file in data.rglob("*.png"):
        os.utime(file, (1, 1))
    before = (run / "split.csv").read_bytes()
    assert train(settings(data), run, resume=True).finished
    assert (run / "split.csv").read_bytes() == before


def test_a_large_data_set_goes_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_record, "HASHED", 1000)
    data = make_folder(tmp_path / "pets")
    dataset = load(DataConfig(str(data)))
    write_split(tmp_path, dataset)
    assert {row.content for row in read_split(tmp_path) or []} == {""}
    assert check_split(tmp_path, dataset) == []
    os.utime(data / "cat" / "2.png", (1, 1))
    with pytest.raises(InputError, match=r"files have changed \(1\): .*cat/2.png"):
        check_split(tmp_path, dataset)


@pytest.mark.filterwarnings("default")  # the command prints what would be an error here
def test_images_that_were_replaced_on_purpose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(tmp_path / "pets")
    run = interrupt(settings(data), tmp_path / "run")
    replace_one(data)
    with pytest.raises(InputError, match="accept_replaced has no effect without resume"):
        longtail.train(str(data), out=tmp_path / "other", accept_replaced=True)
    assert main(["train", "--resume", "--accept-replaced", "--out", str(run)]) == 0
    assert f"changed, accepted (1): {data}/bee/3.png" in capsys.readouterr().err
    assert Run(run).starts[-1]["replaced_images"] == 1
    (run / "metrics.json").unlink()
    assert train(settings(data), run, resume=True).finished  # recorded as they are now
    add_class(data)
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match="classes added"):
        train(settings(data), run, resume=True, accept_replaced=True)


def test_a_relabelled_row_and_another_order_of_a_table(tmp_path: Path) -> None:
    table = as_table(make_folder(tmp_path / "pets"))
    run = interrupt(settings(table), tmp_path / "run")
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(lines)]) + "\n")
    with pytest.raises(InputError, match="another"):
        train(settings(table), run, resume=True)
    table.write_text("\n".join([header, *lines]).replace("bee/3.png,bee", "bee/3.png,cat") + "\n")
    with pytest.raises(InputError, match=r"of another class \(1\): .*3.png \(was bee, is cat\)"):
        train(settings(table), run, resume=True)


def test_images_that_moved_with_their_root(tmp_path: Path) -> None:
    table = as_table(make_folder(tmp_path / "pets"))
    data = DataConfig(str(table), root=str(tmp_path))
    run = interrupt(settings(table, data=data), tmp_path / "run")
    shutil.copytree(tmp_path / "pets", tmp_path / "fast" / "pets")
    shutil.rmtree(tmp_path / "pets")
    moved = settings(table, data=replace(data, root=str(tmp_path / "fast")))
    assert train(moved, run, resume=True).finished
    with (run / "split.csv").open() as file:
        assert all(Path(row["path"]).is_file() for row in csv.DictReader(file))


@pytest.mark.parametrize("moved", ["another working folder", "renamed"])
@pytest.mark.parametrize("kind", ["folder", "table"])
def test_images_at_another_path_are_named_to_resume(
    kind: str,
    moved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_folder(tmp_path / "pets")
    data = as_table(data) if kind == "table" else data
    whole = train(settings(data), tmp_path / "whole")
    monkeypatch.chdir(tmp_path)
    run = interrupt(settings(Path(data.name)), tmp_path / "run")
    new, out = f"../{data.name}", "../run"
    (tmp_path / "paper").mkdir()
    monkeypatch.chdir("paper")
    if moved == "renamed":
        (tmp_path / "far").mkdir()
        shutil.move(tmp_path / "pets", tmp_path / "far" / "pets")
        new = f"../far/{data.name}"
        if kind == "table":
            shutil.move(data, new)
    said = refused(["train", "--resume", "--out", out], run, capsys)
    assert f"the data '{data.name}' of ../run are not found from the folder {Path.cwd()}" in said
    assert "`longtail train PATH --resume --out ../run`" in said
    said = refused(["train", new, "--resume", "--out", out, "--epochs", "5"], run, capsys)
    assert "other settings: epochs was 3 and is 5\n" in said
    assert main(["train", new, "--resume", "--out", out]) == 0
    assert torch.equal(Run(run).predictions().logits, whole.predictions().logits)
    assert main(["train", "--resume", "--out", out]) == 0  # which knows the path now


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_other_images_at_another_path_are_refused(
    change: Callable[[Path], str],
    finished: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_folder(tmp_path / "pets")
    run = tmp_path / "run"
    if finished:
        train(settings(data), run)
    else:
        interrupt(settings(data), run)
    other = shutil.copytree(data, tmp_path / "other")
    wanted = change(other).format(other)
    said = refused(["train", str(other), "--resume", "--out", str(run)], run, capsys)
    assert wanted in said


@pytest.mark.parametrize("finished", [False, True])
def test_replaced_images_at_another_path_are_accepted_if_asked(
    finished: bool, tmp_path: Path
) -> None:
    data, run = make_folder(tmp_path / "pets"), tmp_path / "run"
    if finished:
        train(settings(data), run)
    else:
        interrupt(settings(data), run)
    other = shutil.copytree(data, tmp_path / "other")
    replace_one(other)
    with pytest.warns(UserWarning, match="have changed, accepted"):
        assert train(settings(other), run, resume=True, accept_replaced=True).finished


def test_a_record_without_files_does_not_tell_whether_images_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = make_folder(tmp_path / "pets"), tmp_path / "run"
    interrupt(settings(data), run)
    with (run / "split.csv").open() as file:
        rows = [[row["path"], row["label"], row["split"]] for row in csv.DictReader(file)]
    with (run / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    other = shutil.copytree(data, tmp_path / "other")
    said = refused(["train", str(other), "--resume", "--out", str(run)], run, capsys)
    assert "other settings: data.source was" in said


def test_a_data_set_from_python_must_be_passed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupt(settings(Path("squares")), tmp_path / "run", 3, squares(("a", "b")))
    said = refused(["train", "--resume", "--out", str(run)], run, capsys)
    assert "A Dataset that was passed from Python must be passed again" in said


def test_shards_are_compared_too(tmp_path: Path) -> None:
    write_shards(DataConfig(str(make_folder(tmp_path / "pets"))), tmp_path / "shards", 1)
    run = interrupt(settings(tmp_path / "shards"), tmp_path / "run")
    for file in (tmp_path / "shards").glob("*.tar"):
        os.utime(file, (1, 1))
    copy = shutil.copytree(run, tmp_path / "copy")
    assert train(settings(tmp_path / "shards"), copy, resume=True).finished
    (shard,) = (tmp_path / "shards").glob("train*.tar")
    content = bytearray(shard.read_bytes())
    found = content.index(b"IDAT")
    content[found + 20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError):  # whether or not the image can be read
        train(settings(tmp_path / "shards"), run, resume=True)


def squares(names: tuple[str, ...], seed: int = 0) -> Dataset:
    """Images in memory, whose paths are names."""
    generator = torch.Generator().manual_seed(seed)

    def split(name: str, count: int) -> Split:
        labels = torch.arange(2).repeat(count)
        images = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=generator).byte()
        index = torch.arange(len(labels))
        return Split(labels, index, images, tuple(name for _ in range(len(labels))))

    return Dataset("squares", names, split("train", 12), None, split("test", 2), 8)


def test_images_in_memory_go_by_their_pixels_and_classes_by_their_order(tmp_path: Path) -> None:
    data = squares(("a", "b"))
    run = interrupt(settings(Path("squares")), tmp_path / "run", 3, data)
    for other, message in (
        (squares(("a", "b"), seed=1), r"files have changed \(28\): train"),
        (squares(("b", "a")), r"classes in another order \(2\): b \(was a\), a \(was b\)"),
    ):
        with pytest.raises(InputError, match=message):
            train(settings(Path("squares")), run, resume=True, dataset=other)
    assert train(settings(Path("squares")), run, resume=True, dataset=squares(("a", "b"))).finished


def test_a_run_of_an_older_version_has_no_sizes(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "pets")
    run = interrupt(settings(data), tmp_path / "run")
    rows = read_split(run) or []
    with (run / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *(row[:3] for row in rows)])
    replace_one(data)  # which it cannot know
    (data / "cat" / "1.png").rename(data / "cat" / "100.png")
    with pytest.raises(InputError, match="images removed"):
        train(settings(data), run, resume=True)
    (data / "cat" / "100.png").rename(data / "cat" / "1.png")
    (run / "split.csv").unlink()
    with pytest.warns(UserWarning, match="has no split.csv"):
        assert train(settings(data), run, resume=True).finished
    assert len(read_split(run) or []) == sum(COUNTS.values())


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"path,label\n\0",
        b'path,label,split\n"a,b,c',
        b"\xff\xfe",
        b"path,label,split\n\0,a,b\n",
    ],
)
def test_a_damaged_record_is_named(damage: bytes, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "pets")
    run = interrupt(settings(data), tmp_path / "run")
    (run / "split.csv").write_bytes(damage)
    with pytest.raises(InputError, match=r"run/split\.csv is corrupt"):
        train(settings(data), run, resume=True)
