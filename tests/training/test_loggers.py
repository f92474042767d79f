import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from longtail.training import Run
from longtail.training.loggers import check_logger, epoch_logger


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {"epochs": 3, "lr": 0.1})


def test_tensorboard_shows_what_the_log_holds(run):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with epoch_logger("tensorboard", run, 0) as log:
        log({"epoch": 0, "loss": 3.0})
        log({"epoch": 1, "loss": 2.0})
    with epoch_logger("tensorboard", run, 1) as log:  # killed before epoch 1 was saved
        log({"epoch": 1, "loss": 1.0})
    shown = events.EventAccumulator(str(run.folder / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(0, 3.0), (1, 1.0)]
    assert run.history == [{"epoch": 0, "loss": 3.0}, {"epoch": 1, "loss": 1.0}]


def test_wandb_goes_on_with_the_same_run(run, monkeypatch):
    fake, calls, rows = ModuleType("wandb"), [], []

    def init(**settings):
        calls.append(settings)
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=rows.append,
            finish=lambda: rows.append("finished"),
        )

    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for epoch in (0, 1):
        with epoch_logger("wandb", run, epoch) as log:
            log({"epoch": epoch, "loss": 2.0})
    assert rows == [
        {"loss": 2.0, "epoch": 0},
        "finished",
        {"loss": 2.0, "epoch": 1},
        "finished",
    ]
    assert calls[0] == calls[1]
    assert calls[0]["config"] == {"epochs": 3, "lr": 0.1}
    assert len(calls[0]["id"]) == 8
    assert len(run.history) == 2


def test_json_lines_alone(run):
    with epoch_logger("none", run, 0) as log:
        log({"epoch": 0, "loss": 3.0})
    assert run.history == [{"epoch": 0, "loss": 3.0}]


def test_a_logger_without_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_logger("none")
    with pytest.raises(ValueError, match=r"logger 'wandb' needs its package: pip install"):
        check_logger("wandb")
