"""Trains short runs with another revision of the package and with this one, and compares weights.

    python bench/same_weights.py REVISION [--out results/same_weights.json]

REVISION is a git revision of this repository. Both train the same runs with one thread on the CPU,
on images of digits and on synthetic images with masks in the layout of CamVid. The weights of
every run and of its stage, the saved checkpoint and the losses of the epochs must be equal bit for
bit; otherwise the exit status is 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from longtail.files import write_json

SCENES = {"train": 12, "val": 2, "test": 4}
DIGITS = {"epochs": 2, "batch_size": 64}
PIXELS = {"epochs": 2, "batch_size": 4, "crop": [32, 48], "backbone": "small_unet"}
GML = {"name": "gml", "queue_size": 256}
TEACHER = {"teacher": "train", "teacher_stage": {"epochs": 2}}
# Name, data, method, settings; `camvid` and `mixed` are made-up folders.
RUNS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("digits-lt, ce", "digits-lt", "ce", DIGITS),
    ("digits-lt, gml with teacher", "digits-lt", GML, {**DIGITS, **TEACHER}),
    ("digits-lt, gml without teacher", "digits-lt", GML, {**DIGITS, "teacher": "none"}),
    ("digits-lt, ce with CutMix", "digits-lt", "ce", {**DIGITS, "mix": "cutmix"}),
    ("digits-lt, crt", "digits-lt", "crt", {**DIGITS, "first_stage": {"epochs": 2}}),
    ("image files, ce", "files", "ce", {"epochs": 2, "batch_size": 4, "backbone": "smallnet"}),
    ("image files, gml", "files", GML, {"epochs": 2, "batch_size": 4, "backbone": "smallnet"}),
    ("pixels, ce", "camvid", "ce", PIXELS),
    ("pixels, lade", "camvid", "lade", PIXELS),
    ("pixels, bcl", "camvid", "bcl", PIXELS),
    ("pixels, gml", "camvid", "gml", {**PIXELS, "views": "strong"}),
    ("pixels, gml with teacher", "camvid", "gml", {**PIXELS, **TEACHER}),
    ("pixels from files, gml", "mixed", "gml", PIXELS),
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("revision", help="git revision to compare with")
    options.add_argument("--out", type=Path, default=Path("results/same_weights.json"))
    options.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.train:
        train(given.train, Path(given.revision))
        return
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        other = folder / "other"
        git("worktree", "add", "--detach", str(other), given.revision)
        try:
            for tree, runs in ((other, "old"), (here, "new")):
                started(tree, folder / runs, folder / "data")
        finally:
            git("worktree", "remove", "--force", str(other))
        rows = [compare(run[0], folder / "old", folder / "new") for run in RUNS]
    about = {
        "old": git("rev-parse", "--short", given.revision),
        "new": git("describe", "--always", "--dirty"),
        "torch": torch.__version__,
        "threads": 1,
        "equal": all(row["equal"] for row in rows),
    }
    write_json(given.out, {**about, "runs": rows})
    print(f"equal: {about['equal']}; written: {given.out}")
    sys.exit(0 if about["equal"] else 1)


def git(*words: str) -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def started(tree: Path, runs: Path, data: Path) -> None:
    """Trains all runs with the package of a tree, in a separate process."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(data), "--train", str(runs)]
    subprocess.run(command, env=environment, cwd=data, check=True)


def train(runs: Path, data: Path) -> None:
    """Trains all runs with the package on the path."""
    import longtail

    torch.set_num_threads(1)
    for number, (name, source, method, settings) in enumerate(RUNS):
        given: dict[str, Any] = {"device": "cpu", "precision": "32-true", **settings}
        where: dict[str, Any] = {"source": source}
        if source == "camvid":
            where["root"] = str(data / source)
        elif source == "mixed":
            where, given["task"] = {"source": str(data / source), "workers": 0}, "segmentation"
        elif source == "files":
            where = {"source": str(data / source), "image_size": 80, "workers": 0}
        longtail.train(where, method, out=runs / f"{number:02d}", **given)
        print(f"{name}: trained", flush=True)


def compare(name: str, old: Path, new: Path) -> dict[str, Any]:
    """What is equal in a run and its stage."""
    folder = f"{[run[0] for run in RUNS].index(name):02d}"
    models = sorted(path.relative_to(old) for path in (old / folder).rglob("model.safetensors"))
    weights = [(load_file(old / path), load_file(new / path)) for path in models]
    states = [tuple(last_checkpoint(base / path.parent) for base in (old, new)) for path in models]
    losses = [
        tuple(losses_of(base / path.parent / "metrics.jsonl") for base in (old, new))
        for path in models
    ]
    row = {
        "run": name,
        "models": len(models),
        "weights": sum(value.numel() for state, _ in weights for value in state.values()),
        "equal": all(same(*pair) for pair in (*weights, *states))
        and all(a == b for a, b in losses),
    }
    print(row, flush=True)
    return row


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def last_checkpoint(folder: Path) -> Any:
    path = sorted((folder / "checkpoints").glob("epoch-*.pt"))[-1]
    return torch.load(path, weights_only=True)["method"]


def losses_of(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def make_data(folder: Path) -> None:
    """Scenes in CamVid's folders, scenes of two sizes, and images of three classes."""
    draw = np.random.default_rng(0)
    for split, count in SCENES.items():
        for number in range(count):
            image, mask = scene(draw, 48, 64)
            save(folder / "camvid" / split / f"{number}.png", image)
            save(folder / "camvid" / f"{split}annot" / f"{number}.png", mask)
            image, mask = scene(draw, 48, 64 + 16 * (number % 2))
            save(folder / "mixed" / "images" / split / f"{number}.png", image)
            save(folder / "mixed" / "masks" / split / f"{number}.png", mask.clip(max=10))
    for label, count in enumerate((20, 10, 5)):
        for number in range(count):
            image = draw.normal(60 * label + 60, 30, (90, 100, 3)).clip(0, 255)
            save(folder / "files" / "abc"[label] / f"{number}.png", image.astype(np.uint8))


def scene(draw: np.random.Generator, height: int, width: int) -> tuple[Any, Any]:
    """An image, and its mask with the eleven classes and unlabelled pixels (11)."""
    mask = np.repeat(np.repeat(draw.integers(0, 12, (6, 8)), height // 6, 0), width // 8, 1)
    mask[: height // 3] = 0
    mask[0, :12] = np.arange(12)
    image = 20 * mask[:, :, None] + draw.normal(0, 12, (*mask.shape, 3))
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


if __name__ == "__main__":
    main()
