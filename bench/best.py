"""What each addition to GML is worth on CIFAR-100-LT, judged without its test images.

    python bench/best.py --root DIR [--epochs-scale 0.1] [--parts margins average teachers sam]

100 training images of each class of CIFAR-100 are held out; the others make a training set with
imbalance 100. On it, GML is trained without any part, with each, with all, and with all but each,
after its teachers. Runs resume, and finished ones are not repeated. Writes `results/best.json`.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from longtail import train
from longtail.data import DataConfig, Dataset, Split, long_tailed_counts, long_tailed_subset
from longtail.files import write_json
from longtail.recipes import overlay
from longtail.reproduce import Cell
from longtail.training import Run
from longtail.training.run import environment

SOURCE, IMBALANCE = "cifar100-lt", 100
HELD_OUT = 100  # images of each class
DATA = "best.held_out"  # the function below
TEACHERS = 3
PARTS = ("margins", "average", "teachers", "sam")
FIGURES = ("accuracy", "many", "medium", "few", "ece")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--root", required=True, help="folder of the files of CIFAR-100")
    options.add_argument("--epochs-scale", type=float, default=0.1)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--runs", type=Path, default=Path("runs/best"))
    options.add_argument("--out", type=Path, default=Path("results/best.json"))
    given = options.parse_args()
    folder = given.runs / f"scale-{given.epochs_scale:g}"
    count = TEACHERS if "teachers" in given.parts else 1
    teachers = [
        trained("gml_teacher", given.epochs_scale, given.root, folder / f"teacher-{seed}", seed)
        for seed in range(count)
    ]
    rows = [row(teachers[0], "teacher")]
    base: Run | None = None
    for name, parts in variants(given.parts):
        chosen = teachers if "teachers" in parts else teachers[:1]
        changes = {"teacher": [str(teacher.folder) for teacher in chosen]}
        for part in parts:
            changes = overlay(changes, settings_of(part, given.epochs_scale))
        run = trained("gml", given.epochs_scale, given.root, folder / name, 0, changes)
        base = base or run
        rows.append({**row(run, name), "gain": gain(run, base)})
        rule = "judged on held-out training images at the last epoch"
        write_json(given.out, {"environment": environment(), "rule": rule, "runs": rows})
        print({key: rows[-1][key] for key in ("name", *FIGURES, "gain", "minutes")}, flush=True)


def settings_of(part: str, scale: float) -> dict[str, Any]:
    """Settings of a part; the average of the weights is over the same share of the epochs."""
    return {
        "margins": {"method": {"max_margin": 0.1}},
        "average": {"ema": max(0.0, 1 - 0.001 / scale)},
        "teachers": {},  # several instead of one
        "sam": {"sam": 0.05},
    }[part]


def variants(parts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Names of the students with their parts: none, each alone, all, and all but each."""
    yield "gml", []
    for part in parts:
        yield part, [part]
    if len(parts) > 1:
        yield "all", [*parts]
    for part in parts if len(parts) > 2 else ():
        yield f"without-{part}", [other for other in parts if other != part]


def trained(
    name: str, scale: float, root: str, out: Path, seed: int, changes: dict[str, Any] | None = None
) -> Run:
    """The run of a row of the matrix, on these data and with changes to its settings."""
    settings = Cell(SOURCE, name, IMBALANCE, seed, scale, Path()).config(root)
    settings = overlay({**settings, "data": {"source": DATA, "root": root}}, changes or {})
    settings.pop("teacher_stage", None)
    run = train(**settings, out=out, resume=True, trust=[DATA])
    assert isinstance(run, Run)
    return run


def held_out(config: DataConfig) -> Dataset:
    """A long tail of CIFAR-100's training images, and 100 others of each class as validation."""
    from torchvision.datasets import CIFAR100

    data = CIFAR100(config.root or "data")
    labels = torch.tensor(data.targets)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(config.seed))
    ranked = order[labels[order].argsort(stable=True)].view(len(data.classes), -1)
    judged, rest = ranked[:, :HELD_OUT].flatten(), ranked[:, HELD_OUT:]
    counts = long_tailed_counts(len(rest), rest.shape[1], IMBALANCE)
    kept = rest.flatten()
    kept = kept[long_tailed_subset(labels[kept], counts, config.seed)]
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    train_split, val = (
        Split(
            labels=labels[index],
            index=index,
            images=images[index].contiguous(),
            paths=tuple(f"cifar100/train/{i}" for i in index.tolist()),
        )
        for index in (kept, judged)
    )
    return Dataset("cifar100-held-out", tuple(data.classes), train_split, val, None, 32)


def row(run: Run, name: str) -> dict[str, Any]:
    """Figures of a run, percent."""
    return {
        "name": name,
        **{figure: round(100 * run.metrics[figure], 2) for figure in FIGURES},
        "epochs": run.config["epochs"],
        "minutes": round(sum(record["seconds"] for record in run.history) / 60, 1),
        "settings": run.config,
    }


def gain(run: Run, base: Run) -> str:
    """Accuracy above that of another run on the same images, percent.

    The standard error is that of the images; another seed differs by more.
    """
    right = [
        (one.predictions().logits.argmax(1) == one.predictions().labels).double()
        for one in (run, base)
    ]
    difference = 100 * (right[0] - right[1])
    error = difference.std() / math.sqrt(len(difference)) if run is not base else 0.0
    return f"{difference.mean():.1f} ± {error:.1f}"


if __name__ == "__main__":
    main()
