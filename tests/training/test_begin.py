"""Run folders that have lost a file, or part of one, and are resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.tasks import train
from longtail.training import Config, Run, loop


def settings() -> Config:
    return Config(
        DataConfig("digits-lt"),
        {"name": "ce"},
        backbone="smallnet",
        epochs=3,
        batch_size=128,
        precision="32-true",
        device="cpu",
    )


class PowerCutError(Exception):
    """Ends a training."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A whole run, and the folder of one that was stopped in its third epoch."""
    base = tmp_path_factory.mktemp("runs")
    whole = train(settings(), base / "whole")
    train_step, steps = loop.train_step, 0

    def counted(*args: object) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == 8:  # of three in an epoch
            raise PowerCutError
        return train_step(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        with pytest.raises(PowerCutError):
            train(settings(), base / "stopped")
    return whole, base / "stopped"


@pytest.fixture
def stopped(runs: tuple[Run, Path], tmp_path: Path) -> Path:
    return shutil.copytree(runs[1], tmp_path / "run")


def check_resumed(folder: Path, whole: Run, epochs: list[int]) -> None:
    run = train(settings(), folder, resume=True)
    assert torch.equal(run.predictions().logits, whole.predictions().logits)
    assert [record["epoch"] for record in run.history] == epochs
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize("content", [None, "", '{"command": ["longt', "[]", '{"resumed": 3}'])
def test_a_lost_environment_costs_nothing(
    content: str | None, stopped: Path, runs: tuple[Run, Path]
) -> None:
    path = stopped / "environment.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.warns(UserWarning, match=r"environment\.json is written again"):
        check_resumed(stopped, runs[0], [0, 1, 2])
    (start,) = Run(stopped).starts  # that of the first start is unknown
    assert start["precision"] == "32-true"
    assert Run(stopped).version == "unknown"


@pytest.mark.parametrize("torn", ['{"epoch": 1, "lo', "\0\0\0\0", "7", "\xe4\xff"])
def test_a_torn_last_line_of_the_log_costs_its_record_alone(
    torn: str, stopped: Path, runs: tuple[Run, Path]
) -> None:
    path = stopped / "metrics.jsonl"
    first, _ = path.read_text().splitlines()
    path.write_bytes(first.encode() + b"\n" + torn.encode("latin-1"))
    with pytest.warns(UserWarning, match=r"last line of .*metrics\.jsonl is incomplete"):
        check_resumed(stopped, runs[0], [0, 2])


@pytest.mark.parametrize("line", ["{", "{}", '{"epoch": "one"}'])
def test_another_broken_line_is_named_before_the_first_step(line: str, stopped: Path) -> None:
    path = stopped / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1, "):
        train(settings(), stopped, resume=True)


def test_checkpoints_without_settings(stopped: Path, runs: tuple[Run, Path]) -> None:
    (stopped / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"checkpoints but no config\.yaml .*--resume continues"):
        train(settings(), stopped)
    with pytest.warns(UserWarning, match=r"no config\.yaml .*continues with those given"):
        check_resumed(stopped, runs[0], [0, 1, 2])


def test_settings_that_were_changed_in_the_folder(stopped: Path) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1\n", "lr: 0.4\n"))
    with pytest.raises(InputError, match=r"with other settings: lr was 0\.1 and is 0\.4"):
        train(replace(settings(), lr=0.4), stopped, resume=True)


def test_settings_that_were_cut_off(stopped: Path) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().partition("precision:")[0])
    with pytest.raises(
        InputError, match=r"config\.yaml is truncated or damaged, without precision"
    ):
        train(settings(), stopped, resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_results_without_settings(resume: bool, runs: tuple[Run, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(runs[0].folder, tmp_path / "run")
    (folder / "config.yaml").unlink()
    message = r"has metrics\.json and model\.safetensors but no config\.yaml"
    with pytest.raises(InputError, match=message):
        train(settings(), folder, resume=resume)


def test_a_folder_whose_run_did_not_begin_is_used(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("split.csv", "environment.json"):  # killed before it wrote its settings
        shutil.copy(stopped / name, folder)
    assert train(settings(), folder).finished
    assert json.loads((folder / "environment.json").read_text())["command"]
