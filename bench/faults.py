"""Kills runs at random moments, with one process and with two, and looks at what is left.

    python bench/faults.py [--kills 50] [--out results/faults.json]

Each run is killed (SIGKILL, one process or all of them) again and again at random moments between
its start and its end, resumed each time, and in the end left alone. It must end bit for bit as the
run that was never killed, and no kill may cost more than the steps of one checkpoint interval.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

# Imported here once, and not by each of the processes for itself.
import lightning_fabric  # noqa: F401
import pyarrow.parquet  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch

import longtail.report  # noqa: F401
from longtail.files import write_json
from longtail.settings import from_keywords, to_config
from longtail.tasks import train
from longtail.training import Run, loop
from longtail.training.run import environment

STEPS = 6  # of an epoch: 411 images, 64 in a batch
INTERVAL = 2  # epochs between checkpoints
PATIENCE = 15.0  # seconds after which the other process is ended, as torchrun and Fabric do
SETTINGS: dict[str, Any] = {
    "method": {"name": "gml", "queue_size": 64, "queue_base": 4},
    "teacher": "none",
    "epochs": 6,
    "batch_size": 64,
    "checkpoint_every": INTERVAL,
    "precision": "32-true",
    "device": "cpu",
}
reached = multiprocessing.Value("i", 0)  # step of the whole training that was begun last


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=50, help="in all, half with two processes")
    options.add_argument("--kills-per-run", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("results/faults.json"))
    given = options.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for processes in (1, 2)
            for row in campaign(Path(folder), processes, given.kills // 2, given, draw)
        ]
    kills = [kill for row in rows for kill in row["kills"]]
    others = [status for kill in kills for status in kill["other_status"]]
    summary = {
        "kills": len(kills),
        "runs": len(rows),
        "runs_equal_to_unbroken": sum(row["equal"] for row in rows),
        "interval_steps": STEPS * INTERVAL,
        "most_steps_lost": max(kill["lost_steps"] for kill in kills),
        "one_of_two_killed": len(others),
        "the_other_ended_by_itself": sum(status != -signal.SIGKILL for status in others),
    }
    content = {"environment": environment(), "settings": SETTINGS, "summary": summary, "runs": rows}
    write_json(given.out, content)
    print(json.dumps(summary, indent=1))
    good = summary["runs"] == summary["runs_equal_to_unbroken"]
    sys.exit(0 if good and summary["most_steps_lost"] <= summary["interval_steps"] else 1)


def campaign(
    folder: Path, processes: int, kills: int, given: argparse.Namespace, draw: random.Random
) -> list[dict[str, Any]]:
    """Runs with so many processes until so many kills have hit one."""
    began = time.monotonic()
    whole = folder / f"whole-{processes}"
    finish(start(whole, processes))
    seconds = time.monotonic() - began
    rows: list[dict[str, Any]] = []
    while (left := kills - sum(len(row["kills"]) for row in rows)) > 0:
        broken = folder / f"broken-{processes}-{len(rows)}"
        found = []
        while len(found) < min(left, given.kills_per_run):
            kill = attempt(broken, processes, draw.uniform(0, seconds), draw)
            if kill is None:  # it had ended before
                break
            found.append(kill)
        else:
            finish(start(broken, processes))
        rows.append({"processes": processes, "kills": found, "equal": equal(broken, whole)})
        print(f"{processes} processes, run {len(rows)}: {rows[-1]}", flush=True)
        shutil.rmtree(broken)
    return rows


def attempt(
    folder: Path, processes: int, moment: float, draw: random.Random
) -> dict[str, Any] | None:
    """Resumes a run and kills it; None when it ended before that moment."""
    children = start(folder, processes)
    victims = draw.choice([children, [draw.choice(children)]])
    ended = wait(children, moment)
    if len(ended) == len(children):
        assert set(ended.values()) == {0}, log_of(folder)
        return None
    for child in victims:
        if child not in ended:
            os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    at = reached.value
    ended |= wait([child for child in children if child not in ended], PATIENCE)
    for child in children:
        if child not in ended:  # it waits for the other to arrive, for which torch takes 30 minutes
            os.kill(child, signal.SIGKILL)
            ended[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    survivors = [status for child, status in ended.items() if child not in victims]
    state = Run(folder).checkpoints.load_last() if (folder / "config.yaml").is_file() else None
    saved = state["epoch"] * STEPS + state["step"] if state else 0
    return {
        "moment_seconds": round(moment, 2),
        "killed": len(victims),
        "at_step": at,
        "saved_step": saved,
        "lost_steps": max(0, at - saved),
        "other_status": survivors,
        "other_seconds": round(time.monotonic() - killed, 2) if survivors else 0.0,
    }


def start(folder: Path, processes: int) -> list[int]:
    """Forks the processes of a run; returns their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reached.value = 0
    children = []
    for rank in range(processes):
        child = os.fork()
        if not child:
            if processes > 1:
                os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
            run_process(folder, processes)
        children.append(child)
    return children


def run_process(folder: Path, processes: int) -> None:
    """What a forked process does; it never returns."""
    seed_step = loop.seed_step

    def counted(seed: int, epoch: int, step: int, rank: int) -> None:
        reached.value = epoch * STEPS + step
        seed_step(seed, epoch, step, rank)

    loop.seed_step = counted
    with Path(f"{folder}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        config = to_config(from_keywords("digits-lt", **SETTINGS, devices=processes))
        train(config, folder, resume=True)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def wait(children: list[int], seconds: float) -> dict[int, int]:
    """Statuses of the processes that end within that time."""
    ended: dict[int, int] = {}
    last = time.monotonic() + seconds
    while len(ended) < len(children) and time.monotonic() < last:
        for child in children:
            if child not in ended:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return ended


def finish(children: list[int]) -> None:
    """Lets a run end by itself."""
    for child in children:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"a process ended with status {status}"


def equal(broken: Path, whole: Path) -> bool:
    """Whether two finished runs have the same weights, optimiser, losses and predictions."""
    ours, theirs = Run(broken), Run(whole)
    states = [run.checkpoints.load_last() for run in (ours, theirs)]
    losses = [[(r["epoch"], r["loss"]) for r in run.history] for run in (ours, theirs)]
    logits = [run.predictions().logits for run in (ours, theirs)]
    return same(states[0], states[1]) and same(losses[0], losses[1]) and same(logits[0], logits[1])


def same(a: Any, b: Any) -> bool:
    """Bit by bit, in whatever they are nested."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def log_of(folder: Path) -> str:
    return Path(f"{folder}.log").read_text()[-4000:]


if __name__ == "__main__":
    main()
