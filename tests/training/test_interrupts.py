"""What may end a training early, and what it leaves: one process; for several see distributed."""

import errno
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image

from longtail import files
from longtail.cli import main
from longtail.data import (
    DataConfig,
    InMemoryLoader,
    UnreachableError,
    UnreadableImagesError,
    load,
    remote,
)
from longtail.models import Backbone, create_backbone
from longtail.tasks import train
from longtail.training import Config, Run, begin, loop

STEPS = 6  # of an epoch: 411 images, 64 in a batch


def settings() -> Config:
    return Config(
        DataConfig("digits-lt"),
        {"name": "gml", "queue_size": 64},
        views="shift",
        epochs=3,
        batch_size=64,
        precision="32-true",
        device="cpu",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(settings(), tmp_path_factory.mktemp("runs") / "whole")


def at_step(
    monkeypatch: pytest.MonkeyPatch, number: int, what: Callable[[dict[str, Any]], Any]
) -> None:
    """Lets something happen after the step of that number, counted over the whole training."""
    train_step, steps = loop.train_step, 0

    def counted(*args: Any) -> dict[str, Any]:
        nonlocal steps
        parts = train_step(*args)
        if steps == number:
            what(parts)
        steps += 1
        return parts

    monkeypatch.setattr(loop, "train_step", counted)


def check_equal(ours: Run, whole: Run) -> None:
    state, other = ours.checkpoints.load_last(), whole.checkpoints.load_last()
    assert state is not None
    assert other is not None
    for name, value in other["method"].items():
        assert torch.equal(state["method"][name], value), name
    assert torch.equal(ours.predictions().logits, whole.predictions().logits)
    assert [r["loss"] for r in ours.history] == [r["loss"] for r in whole.history]


@pytest.mark.parametrize("step", [2, 5, 8, 17], ids=["first", "epoch's end", "middle", "last"])
def test_sigterm_saves_and_the_run_goes_on_bit_for_bit(
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda parts: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(settings(), tmp_path / "run")
    assert stop.value.code == 143
    epochs, steps = divmod(step + 1, STEPS)
    message = capsys.readouterr().err
    assert f"stopped by SIGTERM; checkpoint saved at epoch {epochs}, step {steps};" in message
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    check_equal(train(settings(), tmp_path / "run", resume=True), whole)


def test_sigterm_after_the_last_step_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = loop.save

    def saved(*arguments: Any) -> None:
        save(*arguments)
        if arguments[5].epoch == settings().epochs:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", saved)
        with pytest.raises(SystemExit):
            train(settings(), tmp_path / "run")
    assert train(settings(), tmp_path / "run", resume=True).finished


def test_sigterm_twice_saves_as_well(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(parts: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGTERM)  # to the group,
        signal.raise_signal(signal.SIGTERM)  # and from the parent

    with monkeypatch.context() as patch:
        at_step(patch, 8, twice)
        with pytest.raises(SystemExit):
            train(settings(), tmp_path / "run")
    check_equal(train(settings(), tmp_path / "run", resume=True), whole)


def test_weights_that_are_no_numbers_are_not_saved(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step, steps = loop.train_step, 0

    def spoiled(fabric: Any, model: Any, *rest: Any) -> dict[str, Any]:
        nonlocal steps
        parts = train_step(fabric, model, *rest)
        steps += 1
        if steps == 2 * STEPS:
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] = torch.nan
        return parts

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", spoiled)
        with pytest.raises(FloatingPointError, match="weights are NaN or infinite") as error:
            train(settings(), tmp_path / "run")
    (path,) = Run(tmp_path / "run").checkpoints.files()
    assert f"the last checkpoint is {path}" in str(error.value)
    check_equal(train(settings(), tmp_path / "run", resume=True), whole)


def test_an_image_that_cannot_be_read_any_more_costs_no_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (24, 80, 80, 3), generator=torch.Generator().manual_seed(0))
    for number, picture in enumerate(pixels.byte().numpy()):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    data = DataConfig(str(tmp_path / "data"), image_size=72, workers=0)
    config = Config(
        data,
        {"name": "ce"},
        backbone="smallnet",
        views="shift",
        epochs=4,
        batch_size=5,  # of 20: none is left out
        checkpoint_every=10,
        precision="32-true",
        device="cpu",
    )
    broken = Path(load(data).train.paths[0])
    at_step(monkeypatch, 7, lambda parts: broken.write_bytes(b""))  # the second epoch's last
    with pytest.raises(UnreadableImagesError, match=re.escape(broken.name)):
        train(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    state = run.checkpoints.load_last()
    assert state is not None
    assert state["epoch"] == len(run.history) == 3
    Image.fromarray(255 - pixels[0].byte().numpy()).save(broken)
    with pytest.raises(ValueError, match=rf"changed \(1\): .*{broken.name}(?s:.*)--accept"):
        train(config, tmp_path / "run", resume=True)
    with pytest.warns(UserWarning, match=rf"accepted \(1\): .*{broken.name}"):
        assert train(config, tmp_path / "run", resume=True, accept_replaced=True).finished


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Puts in Python's own handler: there is none where a shell ran the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_saves_and_a_second_one_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(parts: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)  # os.kill: two may come as one

    with monkeypatch.context() as patch:
        at_step(patch, 1, interrupt)
        with pytest.raises(KeyboardInterrupt, match="saved at epoch 0, step 2"):
            train(settings(), tmp_path / "run")
    (path,) = Run(tmp_path / "run").checkpoints.files()
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda parts: [interrupt(parts), interrupt(parts)])
        with pytest.raises(KeyboardInterrupt, match="stopped; --resume continues from the last"):
            train(settings(), tmp_path / "run", resume=True)
    assert Run(tmp_path / "run").checkpoints.files() == [path]


def test_no_checkpoint_is_promised_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(parts: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    at_step(monkeypatch, 1, interrupt)
    words = ["train", "digits-lt", "--method", "ce", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "longtail: stopped before the first checkpoint; --resume starts again"


@pytest.mark.parametrize("where", ["write_split", "write_given"])
def test_nothing_is_promised_before_anything_was_saved(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    words = ["train", "digits-lt", "--method", "ce", "--device", "cpu", "--epochs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["longtail.training.begin"], where, interrupt)
        assert main([*words, "--out", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "longtail: stopped before anything was saved: run the command again"
    assert main([*words, "--out", str(tmp_path / "run")]) == 0


def test_a_stage_leaves_the_message_to_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split, calls = begin.write_split, 0

    def interrupt(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # of the teacher
            raise KeyboardInterrupt
        write_split(*args)

    with monkeypatch.context() as patch:
        patch.setattr(begin, "write_split", interrupt)
        words = ["train", "digits-lt", "--method", "gml", "--teacher", "train", "--device", "cpu"]
        assert main([*words, "--epochs", "1", "--out", str(tmp_path / "run")]) == 130
    said = [line for line in capsys.readouterr().err.splitlines() if "stopped" in line]
    assert said == ["longtail: stopped before the first checkpoint; --resume starts again"]
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0


def own_net() -> Backbone:
    return create_backbone("smallnet")


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("where", ["at once", "after the step"])
def test_own_code_must_be_trusted_to_resume(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(parts: dict[str, Any]) -> None:
        if where == "at once":
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    own = f"{own_net.__module__}.own_net"
    words = ["train", "digits-lt", "--method", "ce", "--backbone", own, "--device", "cpu"]
    words += ["--epochs", "1", "--batch-size", "128"]
    with monkeypatch.context() as patch:
        at_step(patch, 1, interrupt)
        assert main([*words, "--out", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"longtail: stopped before the first checkpoint; --resume (with --trust {own}) starts again"
        if where == "at once"
        else f"longtail: --resume needs --trust {own}"
    )
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 2
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--trust", own]) == 0


def test_a_loss_that_is_no_number_names_images_and_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, STEPS + 2, lambda parts: parts.update(loss=parts["loss"] * torch.inf))
    folder = tmp_path / "run"
    with pytest.raises(FloatingPointError, match="at step 2 of epoch 1") as error:
        train(settings(), folder)
    (path,) = Run(folder).checkpoints.files()
    assert f"the last checkpoint is {path}" in str(error.value)
    loader = InMemoryLoader(
        load(DataConfig("digits-lt")).train, 64, sampler="shuffle", drop_last=True
    )
    bad = list(loader.epoch(1))[2].index.tolist()
    first = ", ".join(map(str, bad[:20]))
    assert f"for the images with index {first} and 44 more" in str(error.value)
    found = json.loads((folder / "not_finite.json").read_text())
    assert found == {"epoch": 1, "step": 2, "index": bad}


def test_weights_that_burst_are_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "digits-lt", "--method", "ce", "--lr", "1e30", "--device", "cpu"]
    assert main([*words, "--epochs", "2", "--out", str(tmp_path / "run")]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert re.fullmatch(r"longtail: error: the loss is NaN or infinite at step \d of .*", lines[0])
    assert "there is no checkpoint yet" in lines[0]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "epoch-000002", "model.safetensors", "predictions.parquet"]
)
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fsync, writes = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal writes
        if name in os.readlink(f"/proc/self/fd/{handle}"):
            writes += 1
            if writes == 1 + (name == "metrics.jsonl"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=f"cannot write .*{name}.*: No space left on device"):
            train(settings(), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.part"))
    assert Run(tmp_path / "run").checkpoints.load_last() is not None
    check_equal(train(settings(), tmp_path / "run", resume=True), whole)


def test_a_cut_checkpoint_costs_one_interval(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2 * STEPS + 1, lambda parts: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            train(settings(), tmp_path / "run")
    path = Run(tmp_path / "run").checkpoints.files()[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is corrupt"):
        check_equal(train(settings(), tmp_path / "run", resume=True), whole)


def test_a_server_that_is_lost_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("memory")
    store.store.clear()
    pixels = torch.randint(0, 256, (20, 80, 80, 3), generator=torch.Generator().manual_seed(0))
    for number, picture in enumerate(pixels.byte().numpy()):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "png")
        store.pipe_file(f"memory://images/{number}.png", content.getvalue())
    rows = [f"{n}.png,{'ab'[n % 2]},{'test' if n > 17 else 'train'}\n" for n in range(20)]
    store.pipe_file("memory://images/t.csv", "".join(["path,label,split\n", *rows]).encode())
    data = DataConfig("memory://images/t.csv", image_size=72, workers=0)
    options = {"backbone": "smallnet", "views": "shift", "epochs": 2, "batch_size": 6}
    config = Config(data, {"name": "ce"}, **options, precision="32-true", device="cpu")
    whole = train(config, tmp_path / "whole")
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "0")
    monkeypatch.setattr(remote, "DELAYS", (0.0,))

    def lose(parts: dict[str, Any]) -> None:
        patch.setattr(remote, "_request", lambda parts: [ConnectionError("no route")] * len(parts))

    with monkeypatch.context() as patch:
        at_step(patch, 3, lose)  # the second epoch's first
        with pytest.raises(UnreachableError, match=r"memory://.* cannot be read: no route, in"):
            train(config, tmp_path / "run")
    state = Run(tmp_path / "run").checkpoints.load_last()
    assert state is not None
    assert (state["epoch"], state["step"]) == (1, 1)
    check_equal(train(config, tmp_path / "run", resume=True), whole)
