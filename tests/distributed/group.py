"""Runs the checks in groups of 1, 2 and 3 processes; `test_equality.py` compares what they leave.

A script of its own, which imports everything once and forks: a new process would take seconds to
import torch, eight times over. Each process writes `FOLDER/GROUP-RANK.pt`.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  (these three would be imported by each process for itself)
import numpy as np
import pyarrow.parquet  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch
from forks import in_group
from PIL import Image

from longtail import ClassPrior
from longtail.data import ClassBalancedSampler, DataConfig
from longtail.errors import LostProcessError
from longtail.integrations.torchmetrics import (
    BalancedAccuracy,
    ClasswiseCalibrationError,
    GroupAccuracy,
)
from longtail.memory import ClassQueue, gather_keys, gather_with_grad
from longtail.methods import Method, create_method
from longtail.models import CosineHead, ImageClassifier, create_backbone, create_dense_head
from longtail.segmentation import (
    PixelConfig,
    PixelDataConfig,
    Segmenter,
    SmallUNet,
    create_pixel_method,
)
from longtail.tasks import train
from longtail.training import Config, Run, loop
from longtail.training.batch_norm import share_batch_norm
from longtail.training.distributed import launch
from longtail.training.graphed import compute_gradients
from longtail.training.input import TrainingBatch
from longtail.training.optim import make_optimizer
from longtail.training.sharpness import SharpnessAware

GROUPS = (1, 2, 3)
STEPS, BATCH = 2, 12
COUNTS = [40, 20, 9, 4, 1]
QUEUE = {"queue_size": 24, "queue_base": 1, "width": 8}
# GML with a short queue and a class of one image: rows that do not count.
METHODS: dict[str, dict[str, Any]] = {
    "ce": {},
    "lade": {},
    "reweighted": {},
    "bcl": {"width": 8},
    "gml": QUEUE,
    "gml_teacher": QUEUE,
    "gml_unused": {**QUEUE, "beta": 0.0},
    "gml_sam": QUEUE,
    "paco": {"queue_size": 24, "width": 8},
    "proco": {"width": 8},
    "supcon_features": {"width": 8},
}
# Enough samples for all pixels of a class, so that none are drawn at random.
SAMPLED = {"queue_size": 600, "queue_base": 8, "queries": 96, "keys": 96, "key_share": 0.5}
PIXEL_METHODS: dict[str, dict[str, Any]] = {
    "pixel_ce": {},
    "pixel_lade": {},
    "pixel_bcl": {"samples": 96},
    "pixel_gml": SAMPLED,
    "pixel_gml_teacher": SAMPLED,
}


def config(world: int, **settings: Any) -> Config:
    given = {"batch_size": BATCH, "lr": 0.05, "precision": "64-true", "device": "cpu"}
    return Config(DataConfig("digits-lt"), {"name": "ce"}, devices=world, **{**given, **settings})


def batches(rank: int, world: int, views: int) -> Iterator[TrainingBatch]:
    """This process's share of each global batch, as files give it: (V, B, 3, H, W)."""
    generator = torch.Generator().manual_seed(1)
    rarity = torch.tensor(COUNTS).sqrt()
    for _ in range(STEPS):
        images = torch.randint(0, 256, (views, BATCH, 3, 8, 8), generator=generator).byte()
        target = torch.multinomial(rarity, BATCH, replacement=True, generator=generator)
        target[3] = 4  # of the class with one slot in the queue
        index = torch.randint(0, 60, (BATCH,), generator=generator)
        mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        yield TrainingBatch(images[:, mine], target[mine], index[mine])


def pixel_batches(rank: int, world: int) -> Iterator[TrainingBatch]:
    """This process's share of each global batch; the last images of the second have no class."""
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        images = torch.randint(0, 256, (1, BATCH, 3, 16, 16), generator=generator).byte()
        target = torch.randint(len(COUNTS) - 1, (BATCH, 4, 4), generator=generator)
        target[1, 0, 0] = len(COUNTS) - 1
        target = target.repeat_interleave(4, 1).repeat_interleave(4, 2)
        target[torch.rand(target.shape, generator=generator) < 0.2] = 255
        target[BATCH - 4 * step :] = 255
        mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        yield TrainingBatch(images[:, mine], target[mine], torch.arange(BATCH)[mine])


def pixel_method(name: str) -> Method:
    torch.manual_seed(0)
    words = name.split("_")
    teacher = None
    if words[-1] == "teacher":
        teacher = Segmenter(tiny_unet(), create_dense_head("linear", 6, len(COUNTS))).double()
    images = ClassPrior([12, 12, 10, 9, 1])
    settings = PIXEL_METHODS[name]
    return create_pixel_method(words[1], settings, ClassPrior(COUNTS), images, tiny_unet(), teacher)


def tiny_unet() -> SmallUNet:
    return SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6)


def image_method(name: str) -> Method:
    torch.manual_seed(0)
    prior = ClassPrior(COUNTS)
    teacher = None
    if name == "gml_teacher":
        backbone = create_backbone("smallnet_wide")
        teacher = ImageClassifier(backbone, CosineHead(backbone.num_features, len(COUNTS))).double()
    return create_method(
        name.removesuffix("_unused").removesuffix("_teacher").removesuffix("_sam"),
        METHODS[name],
        prior,
        create_backbone("smallnet"),
        teacher,
    )


def steps_of(name: str, rank: int, world: int) -> dict[str, Any]:
    """Losses and gradients of a few steps, and the state that they leave."""
    method = pixel_method(name) if name in PIXEL_METHODS else image_method(name)
    settings = config(world)
    fabric = launch(settings)
    share_batch_norm(method, fabric)
    optimizer = make_optimizer(method, settings)
    model, wrapped = fabric.setup(method, optimizer)
    method.train()
    found: dict[str, Any] = {"losses": [], "gradients": [], "targets": []}
    pixels, views = name in PIXEL_METHODS, method.num_views
    sharp = SharpnessAware(compute_gradients, 0.05)
    gradients = sharp if name.endswith("_sam") else compute_gradients
    for batch in pixel_batches(rank, world) if pixels else batches(rank, world, views):
        parts = loop.train_step(fabric, model, wrapped, batch, gradients)
        found["losses"].append(parts["loss"].detach())
        found["targets"].append(batch.target)
        found["gradients"].append(
            {
                key: parameter.grad.clone()
                for key, parameter in method.named_parameters()
                if parameter.grad is not None
            }
        )
    return {**found, "state": {key: v.clone() for key, v in method.state_dict().items()}}


def gathered(rank: int) -> dict[str, Any]:
    """What `gather_with_grad` and `gather_keys` give and send back."""
    mine = torch.tensor([1.0 + rank, 10.0 + rank], dtype=torch.float64, requires_grad=True)
    every = gather_with_grad(mine)
    (every.square().sum() * (1 + rank)).backward()
    ragged = torch.arange(rank + 1.0)
    queue = ClassQueue(ClassPrior([3, 2]), size=4, width=1, base=1)
    labels = ragged.long() % 2
    queue.enqueue(*gather_keys(ragged[:, None], labels, labels + rank, ragged=True))
    return {
        "every": every.detach(),
        "labels": gather_with_grad(torch.tensor([rank])),
        "gradient": mine.grad,
        "ragged": gather_keys(ragged, ragged.long(), ragged=True),
        "queue": queue.state_dict(),
    }


def shared_metrics(rank: int, world: int) -> dict[str, Any]:
    """Metrics of torchmetrics over all processes, each of which was given its share."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(61, len(COUNTS), generator=generator).softmax(1)
    labels = torch.arange(61) % len(COUNTS)
    found: dict[str, Any] = {}
    for metric in (
        GroupAccuracy(ClassPrior(COUNTS)),
        BalancedAccuracy(len(COUNTS)),
        ClasswiseCalibrationError(len(COUNTS), bins=4),
    ):
        metric.update(probabilities[rank::world], labels[rank::world])
        found[type(metric).__name__] = metric.compute()
    return found


# Made before there is a group, as by the user of a trainer that starts the processes later.
SAMPLER = ClassBalancedSampler(torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS)))


def balanced_draws() -> list[int]:
    """What a sampler draws that was told nothing of the processes."""
    return [*SAMPLER]


def whole_run(folder: Path, world: int) -> dict[str, Any]:
    """A run from start to predictions; images are seen as they are, so nothing is random."""
    settings = config(world, epochs=2, batch_size=60, views="none", sampling="class_balanced")
    return result_of(train(settings, folder / f"run-{world}"))


def staged_run(folder: Path, world: int, name: str) -> dict[str, Any]:
    """A run with a stage before, which is trained in its folder: GML's teacher, or cRT's first."""
    stage = {"teacher": {"teacher": "train"}, "first": {}}[name]
    method = {"teacher": {"name": "gml", **QUEUE}, "first": {"name": "crt"}}[name]
    settings = config(world, epochs=1, batch_size=60, views="none", **stage)
    return result_of(train(replace(settings, method=method), folder / f"{name}-{world}"))


def pixel_run(folder: Path, world: int) -> dict[str, Any]:
    """A segmentation with a teacher, from start to metrics; images are seen as they are."""
    settings = PixelConfig(
        PixelDataConfig(str(folder / "scenes")),
        {"name": "gml", **SAMPLED},
        views="none",
        epochs=1,
        batch_size=6,
        teacher="train",
        precision="64-true",
        device="cpu",
        devices=world,
    )
    run = train(settings, folder / f"pixels-{world}")
    return {
        "confusion": run.confusion(),
        "metrics": run.metrics,
        "weights": run.model().state_dict(),
        "files": sorted(p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*.png")),
        "loss": [record["loss"] for record in run.history],
    }


def make_scenes(folder: Path) -> None:
    """Images of 16x24 with blocks of four classes, and their masks."""
    draw = np.random.default_rng(0)
    for split, count in {"train": 12, "test": 5}.items():
        for number in range(count):
            mask = np.repeat(np.repeat(draw.integers(0, 4, (4, 6)), 4, 0), 4, 1)
            mask[draw.random(mask.shape) < 0.1] = 255
            image = draw.integers(0, 256, (16, 24, 3))
            for kind, values in (("images", image), ("masks", mask)):
                path = folder / kind / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(path)


def lost_process(folder: Path, rank: int, world: int) -> str | None:
    """What the others raise where the last process is killed, in a run of their own."""
    settings = config(world, epochs=2, batch_size=60, views="none")
    train_step, steps = loop.train_step, 0

    def killed(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3 and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(*args)

    loop.train_step = killed
    try:
        train(settings, folder / f"lost-{world}")
    except LostProcessError as error:
        return str(error)
    return None


def own_fault(folder: Path, rank: int, world: int) -> str:
    """What a process raises whose own step fails with a RuntimeError, while the others wait."""
    settings = config(world, epochs=2, batch_size=60, views="none")
    train_step = loop.train_step

    def failing(*args: Any) -> Any:
        if rank == 0:
            raise RuntimeError("a fault of its own")
        return train_step(*args)

    loop.train_step = failing
    try:
        train(settings, folder / f"fault-{world}")
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def resumed_run(folder: Path, world: int) -> dict[str, Any]:
    """The same, stopped by SIGTERM of one process of two, then by that of one of three."""
    settings = config(world, epochs=2, batch_size=60, views="none", sampling="class_balanced")
    train_step, steps, exit_codes = loop.train_step, 0, []

    def stopped(fabric: Any, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3 and fabric.global_rank == fabric.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(fabric, *args)

    loop.train_step, every = stopped, loop.CHECK_EVERY
    loop.CHECK_EVERY = 2
    try:
        train(settings, folder / "resumed", resume=True)
    except SystemExit as stop:
        exit_codes.append(stop.code)
    loop.train_step, loop.CHECK_EVERY = train_step, every
    found = {"exit_codes": exit_codes}
    if world == 3:
        found |= result_of(train(settings, folder / "resumed", resume=True))
    return found


def faults(folder: Path, rank: int, world: int) -> dict[str, str]:
    """What every process says of a bad loss of the last one, and of a full disk of the first."""
    settings = config(world, epochs=2, batch_size=60, views="none")
    train_step, fsync, said = loop.train_step, os.fsync, {}

    def not_finite(*args: Any) -> dict[str, Any]:
        parts = train_step(*args)
        return {"loss": parts["loss"] * (torch.nan if rank == world - 1 else 1.0)}

    def full(handle: int) -> None:
        if "epoch-000001" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    loop.train_step = not_finite
    try:
        train(settings, folder / f"not-finite-{world}")
    except FloatingPointError as error:
        said["not finite"] = str(error)
    loop.train_step, os.fsync = train_step, full
    try:
        train(settings, folder / f"full-{world}")
    except OSError as error:
        said["full"] = str(error)
    os.fsync = fsync
    return said


def result_of(run: Run) -> dict[str, Any]:
    predictions = asdict(run.predictions())
    state = run.checkpoints.load_last()
    assert state is not None
    names = ("logits", "labels", "index")
    return {
        **{name: predictions[name] for name in names},
        "state": state["method"],
        "files": sorted(path.name for path in run.folder.iterdir()),
        "loss": [record["loss"] for record in run.history],
    }


def process(folder: Path, rank: int, world: int) -> None:
    found: dict[str, Any] = {
        name: steps_of(name, rank, world) for name in (*METHODS, *PIXEL_METHODS)
    }
    found["run"] = whole_run(folder, world)
    found |= {name: staged_run(folder, world, name) for name in ("teacher", "first")}
    found["pixels"] = pixel_run(folder, world)
    if world > 1:
        found["resumed"] = resumed_run(folder, world)
        found["faults"] = faults(folder, rank, world)
    found["gathered"] = gathered(rank)
    found["metrics"] = shared_metrics(rank, world)
    found["draws"] = balanced_draws()
    torch.save(found, folder / f"{world}-{rank}.pt")


def main(folder: Path) -> None:
    make_scenes(folder / "scenes")
    for world in GROUPS:
        statuses = in_group(world, lambda rank, world=world: process(folder, rank, world))
        if any(statuses):
            sys.exit(f"processes of {world} ended with statuses {statuses}")
    for name, act in {"lost": lost_process, "fault": own_fault}.items():

        def ending(rank: int, name: str = name, act: Any = act) -> None:
            said = act(folder, rank, GROUPS[-1])
            torch.save(said, folder / f"{name}-{rank}.pt")
            os._exit(0)  # without a farewell to the process that is gone

        torch.save(in_group(GROUPS[-1], ending), folder / f"{name}-statuses.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
