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
import os, signal, sys
import lightning_fabric, longtail.report, pyarrow.parquet, sklearn.datasets
from longtail.api import start
from longtail.settings import from_arguments, to_config
from longtail.training import loop

folder, kills, words = sys.argv[1], [int(k) for k in sys.argv[2].split(",") if k], sys.argv[3:]

def attempt(kill_at):
    steps, train_step = 0, loop.train_step
    def counted(*args):
        nonlocal steps
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return train_step(*args)
    loop.train_step = counted
    start(to_config(from_arguments(words)), folder, resume=True)

for kill_at in [*kills, None]:
    child = os.fork()
    if not child:
        attempt(kill_at)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(status) and kill_at is not None) or status == 0, status
"""


def train_with_kills(folder: Path, kills: list[int], words: list[str]) -> Run:
    command = [sys.executable, "-c", KILLED, str(folder), ",".join(map(str, kills)), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Run(folder)


@pytest.mark.parametrize("teacher", ["train", "none"])
def test_killed_three_times_equals_never_killed(tmp_path: Path, teacher: str) -> None:
    words = ["digits-lt", "--method", "gml", "--epochs", "3", "--teacher", teacher]
    # 411 images make 6 steps an epoch: a kill within the first ten steps of each attempt.
    draw = random.Random(7)
    kills = [draw.randrange(1, 10) for _ in range(3)]
    killed = train_with_kills(tmp_path / "killed", kills, words)
    whole = train_with_kills(tmp_path / "whole", [], words)
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
