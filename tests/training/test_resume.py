import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longtail.training import Run

# Runs trainings in forked children, each of which kills itself (SIGKILL) before the step that it is
# told; the last one is left to end. Forking spares a new import of everything for each of them.
KILLED = """
import json, os, signal, sys
import lightning_fabric, longtail.report, pyarrow.parquet, sklearn.datasets
from longtail.api import start
from longtail.settings import from_keywords, to_config
from longtail.training import loop

def attempt(folder, kill_at, settings):
    steps, train_step = 0, loop.train_step
    def counted(*args):
        nonlocal steps
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return train_step(*args)
    loop.train_step = counted
    start(to_config(from_keywords(**settings)), folder, resume=True)

for folder, kills, settings in json.loads(sys.argv[1]):
    for kill_at in [*kills, None]:
        child = os.fork()
        if not child:
            attempt(folder, kill_at, settings)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert (os.WIFSIGNALED(status) and kill_at is not None) or status == 0, status
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with a teacher and without, `killed` and `whole`, in one process after the other."""
    base, draw = tmp_path_factory.mktemp("runs"), random.Random(7)
    jobs = []
    gml = {"method": "gml", "epochs": 3}
    adamw = {"optimizer": "adamw", "lr": 1e-3, "ema": 0.9, "layer_decay": 0.8}
    for name, changes in {
        "train": {**gml, "teacher": "train"},
        "none": {**gml, "teacher": "none"},
        "adamw": {"method": "ce", "epochs": 3, **adamw},
    }.items():
        settings = {"data": "digits-lt", **changes}
        # 411 images make 6 steps an epoch: a kill within the first ten steps of each attempt.
        kills = [draw.randrange(1, 10) for _ in range(3)]
        jobs += [[str(base / name / "killed"), kills, settings]]
        jobs += [[str(base / name / "whole"), [], settings]]
    command = [sys.executable, "-c", KILLED, json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return base


@pytest.mark.parametrize("kind", ["train", "none", "adamw"])
def test_killed_three_times_equals_never_killed(folder: Path, kind: str) -> None:
    killed, whole = (Run(folder / kind / name) for name in ("killed", "whole"))
    ours, theirs = (run.checkpoints.load_last() for run in (killed, whole))
    assert ours is not None
    assert theirs is not None
    assert ours["epoch"] == theirs["epoch"] == 3
    for name, value in theirs["method"].items():
        assert torch.equal(ours["method"][name], value), name
    for number, state in theirs["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(ours["optimizer"]["state"][number][name], value), (number, name)
    assert torch.equal(killed.predictions().logits, whole.predictions().logits)
    assert [r["epoch"] for r in killed.history] == list(range(3))
    assert [r["loss"] for r in killed.history] == [r["loss"] for r in whole.history]
