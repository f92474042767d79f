"""Runs commands in 1, 2 and 3 processes, as torchrun starts them; for `test_sharing.py`.

A script of its own, which imports everything once and forks. What process RANK of WORLD says is in
`NAME-WORLD-RANK.txt`, the exit statuses of all are in `statuses.json`.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # noqa: F401  (these two would be imported by each process for itself)
import sklearn.datasets  # noqa: F401
from forks import in_group
from PIL import Image

import longtail.pictures  # noqa: F401
from longtail.cli import main
from longtail.data import DataConfig, UnreachableError, load
from longtail.features import engine
from longtail.segmentation import PixelConfig, PixelDataConfig
from longtail.tasks import train
from longtail.training import Config
from longtail.training.reference import keep_reference

WORLDS = (1, 2, 3)
COUNTS = {"many": 9, "some": 4, "few": 3}
BROKEN = (5, 10)  # rows of the table


def prepare(folder: Path) -> None:
    """A run of images, finished and not, one of pixels, and files to predict."""
    data = DataConfig("digits-lt")
    given: dict[str, Any] = {"device": "cpu", "precision": "32-true", "epochs": 1}
    run = train(Config(data, {"name": "ce"}, batch_size=60, **given), folder / "run")
    keep_reference(run, load(data))
    unfinished = shutil.copytree(run.folder, folder / "unfinished")
    for name in ("metrics.json", "model.safetensors"):
        (unfinished / name).unlink()
    draw = np.random.default_rng(0)
    files = [folder / "tree" / name / f"{n}.png" for name in COUNTS for n in range(COUNTS[name])]
    for file in files:
        save(file, draw.integers(0, 256, (*draw.integers(9, 20, 2), 3)))
    for row in BROKEN:
        files.insert(row, folder / f"broken-{row}.png")
        files[row].write_bytes(b"no image")
    (folder / "table.csv").write_text("\n".join(["path", *map(str, files)]))
    for split, count in {"train": 6, "test": 5}.items():
        for number in range(count):
            mask = np.repeat(np.repeat(draw.integers(0, 4, (4, 6)), 4, 0), 4, 1)
            save(
                folder / "scenes/images" / split / f"{number}.png",
                draw.integers(0, 256, (16, 24, 3)),
            )
            save(folder / "scenes/masks" / split / f"{number}.png", mask)
    scenes = PixelDataConfig(str(folder / "scenes"), workers=0)
    train(PixelConfig(scenes, {"name": "ce"}, batch_size=6, **given), folder / "pixels")
    shutil.copytree(folder / "scenes/images/test", folder / "photos")
    (folder / "photos/3.png").write_bytes(b"no image")


def save(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file)


def commands(folder: Path, world: int) -> dict[str, list[str]]:
    """Command lines, by name."""
    run, pixels, tree = (str(folder / name) for name in ("run", "pixels", "tree"))
    return {
        "predict": ["predict", run, f"{folder}/table.csv", "--out", f"{folder}/{world}.parquet"],
        "embed": ["embed", tree, "--backbone", run, "--out", f"{folder}/embed-{world}.parquet"],
        "evaluate": ["evaluate", f"{folder}/unfinished", "--json"],
        "advise": ["advise", tree, "--data.image-size", "32"],
        "photos": ["predict", pixels, f"{folder}/photos", "--out", f"{folder}/photos-{world}"],
        "pixels": ["evaluate", pixels, "--target-prior", "uniform", "--json"],
    }


def run_as(
    folder: Path, name: str, world: int, words: list[str], before: Callable[[int], Any] = bool
) -> list[int]:
    """Exit statuses of the processes of a command, each of which calls `before` with its rank."""

    def act(rank: int) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        before(rank)
        os.environ["LONGTAIL_CACHE"] = str(folder / f"cache-{world}")
        if world > 1:
            os.environ |= {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1"}
            os.environ |= {"RANK": str(rank)}
            os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world))
        path = folder / f"{name}-{world}-{rank}.txt"
        with path.open("w") as said, redirect_stdout(said), redirect_stderr(said):
            try:
                status = main(words)
            except Exception:
                traceback.print_exc()
                status = 1
        os._exit(status)

    return in_group(world, act)


def failing(at: int, fail: Callable[[], None], batch: int = 1) -> Callable[[int], None]:
    """Lets a process fail when it reads a batch."""

    def before(rank: int) -> None:
        read, batches = engine._read, 0

        def fail_or_read(*args: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == batch:
                fail()
            return read(*args)

        if rank == at:
            engine._read = fail_or_read

    return before


def unreachable() -> None:
    raise UnreachableError("the server does not answer")


def fault() -> None:
    raise ZeroDivisionError("a fault of its own")


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


FAULTS = {
    "killed": failing(2, send(signal.SIGKILL)),
    "first-killed": failing(0, send(signal.SIGKILL), batch=2),
    "stopped": failing(0, send(signal.SIGINT), batch=2),
    "unreachable": failing(1, unreachable),
    "fault": failing(1, fault),
}


def everything(folder: Path) -> None:
    engine.LARGEST_BATCH = 4  # else there would be one batch; equal in all groups
    sys.modules["longtail.pictures.advise"].REPEATS = 1
    statuses: dict[str, list[int]] = {"prepare": in_group(1, lambda rank: prepare(folder))}
    for world in WORLDS:
        for name, words in commands(folder, world).items():
            statuses[f"{name}-{world}"] = run_as(folder, name, world, words)
    for name, before in FAULTS.items():
        words = [*commands(folder, 3)["predict"][:-1], str(folder / f"{name}.parquet")]
        statuses[name] = run_as(folder, name, 3, words, before)
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    everything(Path(sys.argv[1]))
