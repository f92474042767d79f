"""Kills runs, fills their disk and damages their files, resumes them, and checks the result.

    python bench/faults.py [--kills 200] [--disks 30] [--damages 100] [--out results/faults.json]

Every fault hits a training run of three epochs on image files. After a kill (by
SIGKILL, SIGTERM or SIGINT, once or twice, of one process or of its group, at a drawn moment of the
start, of a step, of the writing of a checkpoint, of the evaluation or of the report) and after a
full disk, the run is resumed and must end with the same result, bit for bit, as an undisturbed run.
After damage to one of its files, it must do the same, or be refused with an input error that names
what is wrong.
"""

import argparse
import contextlib
import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Imported here once, not in each of the processes.
import lightning_fabric  # noqa: F401
import numpy as np
import pyarrow.parquet  # noqa: F401
import torch
from PIL import Image

import longtail.report  # noqa: F401
from longtail import api, classification
from longtail.errors import InputError
from longtail.files import write_json
from longtail.training import Run, begin, loop, train
from longtail.training.environment import environment

COUNTS = {"ant": 32, "bee": 12, "cat": 4}  # training images
EPOCHS, BATCH, INTERVAL = 3, 8, 1
STEPS = sum(COUNTS.values()) // BATCH
KILLS = 4  # of a run
PATIENCE = 20.0  # seconds after which the other process is ended, as torchrun and Fabric do
LONGEST = 300.0  # seconds after which a process counts as hanging
SIGNALS = ("KILL", "TERM", "INT")
PHASES = ("start", "step", "checkpoint", "evaluation", "report")
WRITTEN = {  # phase in which a file is written, by a part of its name
    "epoch-": "checkpoint",
    "model.safetensors": "evaluation",
    "predictions.parquet": "evaluation",
    "metrics.json.": "evaluation",
    "report.html": "report",
}
DISKS = ("split.csv", "environment.json", "config.yaml", "metrics.jsonl", "epoch-")
DISKS += ("model.safetensors", "predictions.parquet", "metrics.json", "report.html")
DAMAGES = ("byte", "cut", "zeros", "empty", "deleted")
reached = multiprocessing.Value("i", 0)  # step of the whole training that was begun last
struck = multiprocessing.Value("i", 0)  # whether the planned kill has come


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--disks", type=int, default=30)
    options.add_argument("--damages", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("results/faults.json"))
    given = options.parse_args()
    budget = {name: getattr(given, name) for name in ("kills", "disks", "damages", "seed")}
    rows: dict[str, list[dict[str, Any]]] = {"kills": [], "disks": [], "damages": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images")
        about = {"environment": environment(), "budget": budget, "settings": settings(Path(), 0, 1)}
        for part, campaign in PARTS.items():
            rows[part] = campaign(folder, getattr(given, part), random.Random(given.seed))
            summary = summary_of(rows)
            write_json(given.out, {**about, "summary": summary, **rows})
    print(json.dumps(summary, indent=1))
    sys.exit(1 if summary["faults"] or summary["most_steps_lost"] > STEPS * INTERVAL else 0)


def make_images(folder: Path) -> None:
    """Noisy images of 72 pixels, which are read from their files."""
    generator = np.random.default_rng(0)
    for level, (name, count) in enumerate(COUNTS.items()):
        for split, number in (("train", count), ("test", 6)):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = generator.integers(0, 120, (72, 72, 3)) + 60 * level
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")


def settings(folder: Path, workers: int, processes: int) -> dict[str, Any]:
    return {
        "data": {"source": str(folder / "images"), "image_size": 72, "workers": workers},
        "method": {"name": "gml", "queue_size": 48, "queue_base": 4},
        "backbone": "smallnet",
        "pretrained": False,
        "teacher": "none",
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "checkpoint_every": INTERVAL,
        "precision": "32-true",
        "device": "cpu",
        "devices": processes,
    }


def kill_runs(folder: Path, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Runs that are killed several times each, until so many kills have hit one."""
    rows: list[dict[str, Any]] = []
    wholes: dict[int, Path] = {}
    while (left := count - sum(len(row["kills"]) for row in rows)) > 0:
        processes, workers = draw.choice((1, 2)), draw.choice((0, 2))
        if processes not in wholes:
            wholes[processes] = folder / f"whole-{processes}"
            finish(start(wholes[processes], settings(folder, 0, processes)))
        broken, options = folder / "broken", settings(folder, workers, processes)
        planned = [plan_kill(processes, draw) for _ in range(min(left, KILLS))]
        planned.sort(key=lambda kill: PHASES.index(kill["phase"]))  # else it ends before them
        found = [kill_once(broken, options, kill) for kill in planned]
        kills = [kill for kill in found if kill]
        statuses = finish(start(broken, options), check=False)
        same = statuses == [0] * processes and equal(broken, wholes[processes])
        about = {"processes": processes, "workers": workers, "kills": kills, "equal": same}
        rows.append(about if same else {**about, "log": log_of(broken)})
        print(f"run {len(rows)}: {rows[-1]}", flush=True)
        remove(broken)
    return rows


def plan_kill(processes: int, draw: random.Random) -> dict[str, Any]:
    """Draws how a run is killed, and when: `moment` counts the points of the phase."""
    phase = draw.choice(PHASES)
    first_alone = phase in ("checkpoint", "report")
    rank = 0 if first_alone else draw.randrange(processes)
    points = {"start": 2, "step": STEPS, "checkpoint": 3, "evaluation": 3, "report": 3}[phase]
    return {
        "signal": draw.choice(SIGNALS),
        "times": draw.choice((1, 2)),
        "group": draw.choice((False, True)),
        "phase": phase,
        "moment": draw.randrange(points) if phase == "step" or not rank else 0,
        "rank": rank,
    }


def kill_once(folder: Path, options: dict[str, Any], kill: dict[str, Any]) -> dict[str, Any] | None:
    """Resumes a run, which kills itself as planned; None if it ended before."""
    children = start(folder, options, lambda rank: arm(kill) if rank == kill["rank"] else None)
    ended = wait(children, LONGEST, enough=1)
    began = time.monotonic()
    hangs = not ended
    at = reached.value
    ended |= wait([child for child in children if child not in ended], PATIENCE)
    waited = round(time.monotonic() - began, 2)
    for child in children:
        if child not in ended:  # waits for the other to arrive, for which torch takes 30 minutes
            os.kill(child, signal.SIGKILL)
            ended[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    statuses = [ended[child] for child in children]
    if not any(statuses):  # it had ended before
        return None
    unasked = {} if struck.value else {"unasked": log_of(folder)[-1000:]}
    state = Run(folder).checkpoints.load_last() if (folder / "config.yaml").is_file() else None
    saved = state["epoch"] * STEPS + state["step"] if state else 0
    lost = {"at_step": at, "saved_step": saved, "lost_steps": max(0, at - saved)}
    others = {"other_seconds": waited} if len(children) > 1 else {}
    return {**kill, "statuses": statuses, "hangs": hangs, **lost, **others, **unasked}


def arm(kill: dict[str, Any]) -> None:
    """Lets this process kill itself, or its group, at the drawn moment of the drawn phase."""
    number, passed = getattr(signal, f"SIG{kill['signal']}"), 0

    def point(phase: str) -> None:
        nonlocal passed
        passed += phase == kill["phase"]
        if phase == kill["phase"] and passed == kill["moment"] + 1:
            struck.value = 1
            for _ in range(kill["times"]):
                if kill["group"]:
                    os.killpg(os.getpgrp(), number)
                else:
                    os.kill(os.getpid(), number)

    for owner, name, phase in (
        (train, "begin_run", "start"),
        (begin, "write_split", "start"),
        (loop, "restore", "start"),
        (loop, "train_step", "step"),
        (classification, "_predict_split", "evaluation"),
        (api, "report", "report"),
    ):
        before_calls(owner, name, lambda phase=phase: point(phase))
    fsync = os.fsync

    def synced(handle: int) -> None:
        name = name_of(handle)
        phase = next((phase for word, phase in WRITTEN.items() if word in name), "")
        point(phase)
        fsync(handle)
        point(phase)

    os.fsync = synced


def fill_disks(folder: Path, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Runs in which one file cannot be written for lack of space, and then can."""
    whole, rows = folder / "whole-1", []
    options = settings(folder, 0, 1)
    if not whole.exists():
        finish(start(whole, options))
    for number in range(count):
        word, broken = DISKS[number % len(DISKS)], folder / "broken"
        moment = draw.randrange(EPOCHS) if word in ("metrics.jsonl", "epoch-") else 0
        statuses = finish(start(broken, options, partial(fill, word, moment)), check=False)
        said = log_of(broken).strip().splitlines()[-1:]
        named = any(word in line and os.strerror(errno.ENOSPC) in line for line in said)
        parts = [path.name for path in broken.rglob("*.part")]
        again = finish(start(broken, options), check=False)
        done = again == [0] and equal(broken, whole)
        row = {"file": word, "moment": moment, "statuses": statuses, "named": named, "parts": parts}
        rows.append(
            {**row, "equal": done} if done else {**row, "equal": done, "log": log_of(broken)}
        )
        print(f"full disk {number + 1}: {rows[-1]}", flush=True)
        remove(broken)
    return rows


def fill(word: str, moment: int, rank: int) -> None:
    """Simulates a full disk when a file is written, after a number of writes."""
    fsync, passed = os.fsync, 0

    def synced(handle: int) -> None:
        nonlocal passed
        if word in name_of(handle):
            passed += 1
            if passed == moment + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    os.fsync = synced


def damage_files(folder: Path, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Resumes a run that was stopped in its last epoch and has a damaged file."""
    whole, stopped, rows = folder / "whole-1", folder / "stopped", []
    options = settings(folder, 0, 1)
    if not whole.exists():
        finish(start(whole, options))
    last = {"signal": "KILL", "times": 1, "group": False, "phase": "step"}
    finish(start(stopped, options, lambda _: arm({**last, "moment": STEPS * 3 - 2})), check=False)
    names = sorted(str(p.relative_to(stopped)) for p in stopped.rglob("*") if p.stat().st_size)
    names = [name for name in names if (stopped / name).is_file()]
    for number in range(count):
        broken, name = folder / "broken", names[number % len(names)]
        shutil.copytree(stopped, broken)
        how = draw.choice(DAMAGES)
        damage(broken / name, how, draw)
        statuses = finish(start(broken, None), check=False)
        log = log_of(broken)
        outcome = "fault"
        if statuses == [0] and equal(broken, whole, history=name != "metrics.jsonl"):
            outcome = "equal"
        elif statuses == [2] and "Traceback" not in log:
            outcome = "named"
        shown = re.sub(r"epoch-(\d+).*", r"epoch-\1", name)
        rows.append({"file": shown, "damage": how, "outcome": outcome})
        if outcome != "equal":
            said = re.sub(r"/\S*(?=/(broken|images))", "", log.strip())  # without where it ran
            rows[-1]["said"] = said[:300]
        print(f"damage {number + 1}: {rows[-1]}", flush=True)
        remove(broken)
    return rows


def damage(path: Path, how: str, draw: random.Random) -> None:
    """Changes a byte, cuts the file, fills a part with zeros, empties it or deletes it."""
    content = bytearray(path.read_bytes())
    at = draw.randrange(len(content))
    if how == "byte":
        content[at] ^= 1 << draw.randrange(8)
    elif how == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    else:
        content = content[:at] if how == "cut" else content[:0]
    path.write_bytes(content)
    if how == "deleted":
        path.unlink()


def start(
    folder: Path,
    options: dict[str, Any] | None,
    prepare: Callable[[int], object] = lambda rank: None,
) -> list[int]:
    """Forks the processes of a run, in a group of their own; returns their numbers.

    Args:
        folder: the run folder; the output of the processes goes to a file next to it.
        options: settings of the run; None: those of its folder.
        prepare: called in each of them with its rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reached.value = struck.value = 0
    children: list[int] = []
    processes = options["devices"] if options else 1
    for rank in range(processes):
        child = os.fork()
        if not child:
            os.setpgid(0, children[0] if children else 0)
            if processes > 1:
                os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
            run_process(folder, options, lambda rank=rank: prepare(rank))
        with contextlib.suppress(OSError):  # the child may have done it and ended
            os.setpgid(child, children[0] if children else child)
        children.append(child)
    return children


def run_process(
    folder: Path, options: dict[str, Any] | None, prepare: Callable[[], object]
) -> None:
    """What a forked process does; it never returns."""
    with Path(f"{folder}.log").open("w" if options is None else "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed_step = loop.seed_step

    def counted(seed: int, epoch: int, step: int, rank: int) -> None:
        reached.value = epoch * STEPS + step
        seed_step(seed, epoch, step, rank)

    loop.seed_step, status = counted, 1
    try:
        prepare()
        api.train(out=folder, resume=True, **(options or {}))
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except InputError as error:
        print(error, file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def before_calls(owner: Any, name: str, act: Callable[[], object]) -> None:
    """Calls something before each call of a function."""
    function = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        act()
        return function(*args, **kwargs)

    setattr(owner, name, called)


def name_of(handle: int) -> str:
    """Name of an open file."""
    return Path(os.readlink(f"/proc/self/fd/{handle}")).name


def wait(children: list[int], seconds: float, enough: int | None = None) -> dict[int, int]:
    """Statuses of the processes that end within that time, or of so many of them."""
    ended: dict[int, int] = {}
    last = time.monotonic() + seconds
    while len(ended) < (enough or len(children)) and time.monotonic() < last:
        for child in children:
            if child not in ended:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return ended


def finish(children: list[int], check: bool = True) -> list[int]:
    """Waits for a run to end; a process that hangs is ended with SIGKILL."""
    ended = wait(children, LONGEST)
    for child in children:
        if child not in ended:
            os.kill(child, signal.SIGKILL)
            ended[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    statuses = [ended[child] for child in children]
    assert not check or not any(statuses), f"processes ended with statuses {statuses}"
    return statuses


def equal(broken: Path, whole: Path, history: bool = True) -> bool:
    """Whether two finished runs have the same weights, optimiser, losses and predictions."""
    ours, theirs = Run(broken), Run(whole)
    states = [run.checkpoints.load_last() for run in (ours, theirs)]
    losses = [[(r["epoch"], r["loss"]) for r in run.history] for run in (ours, theirs)]
    logits = [run.predictions().logits for run in (ours, theirs)]
    whole_report = (broken / "report.html").is_file()
    return (
        whole_report
        and same(states[0], states[1])
        and same(logits[0], logits[1])
        and (not history or same(losses[0], losses[1]))
    )


def same(a: Any, b: Any) -> bool:
    """Whether nested values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        kept = [key for key in a if key not in ("seconds", "settings")]
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in kept)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def remove(folder: Path) -> None:
    """Removes a run folder, and what its processes said."""
    shutil.rmtree(folder, ignore_errors=True)  # it may not have come to make it
    Path(f"{folder}.log").unlink(missing_ok=True)


def log_of(folder: Path) -> str:
    return Path(f"{folder}.log").read_text()[-4000:]


def summary_of(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Counts of faults by kind and outcome."""
    kills = [kill for row in rows["kills"] for kill in row["kills"]]
    two = [kill for kill in kills if len(kill["statuses"]) > 1 and not kill["group"]]
    disks, damages = rows["disks"], rows["damages"]
    good_disks = sum(row["equal"] and row["named"] and not row["parts"] for row in disks)
    outcomes = Counter(row["outcome"] for row in damages)
    hangs = sum(kill["hangs"] for kill in kills)
    unasked = sum("unasked" in kill for kill in kills)
    runs_equal = sum(row["equal"] for row in rows["kills"])
    faults = (
        hangs
        + unasked
        + len(rows["kills"])
        - runs_equal
        + len(disks)
        - good_disks
        + outcomes["fault"]
    )
    return {
        "kills": len(kills),
        **{
            f"kills by {name}": dict(sorted(Counter(str(kill[name]) for kill in kills).items()))
            for name in ("signal", "times", "group", "phase")
        },
        "kills with two processes": sum(len(kill["statuses"]) > 1 for kill in kills),
        "kills with two workers": sum(len(row["kills"]) for row in rows["kills"] if row["workers"]),
        "runs": len(rows["kills"]),
        "runs_equal_to_unbroken": runs_equal,
        "interval_steps": STEPS * INTERVAL,
        "most_steps_lost": max((kill["lost_steps"] for kill in kills), default=0),
        "one_of_two_hit": len(two),
        "the_other_ended_by_itself": sum(kill["other_seconds"] < PATIENCE for kill in two),
        "hangs": hangs,
        "ended_without_a_kill": unasked,
        "full_disks": len(disks),
        "full_disks_named_and_equal": good_disks,
        "damaged_files": len(damages),
        "damages": dict(sorted(outcomes.items())),
        "faults": faults,
    }


PARTS = {"kills": kill_runs, "disks": fill_disks, "damages": damage_files}

if __name__ == "__main__":
    main()
