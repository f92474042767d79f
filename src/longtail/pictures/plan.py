"""The plan of training on own images, printed before its first step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from longtail.classification import CLASSIFICATION
from longtail.data import Dataset, Split
from longtail.data.loaders import available_cpus
from longtail.features import keep_freed_memory, outputs
from longtail.features.cache import keys_of
from longtail.methods import Method, find_method
from longtail.models import Backbone, create_backbone, is_own_backbone
from longtail.pictures.settings import BACKBONE, STRONGER, fine_tunes_method, fine_tuning
from longtail.training import Config
from longtail.training.distributed import device_of
from longtail.training.embed import cached_network
from longtail.training.input import evaluation_crop
from longtail.training.stages import Stage
from longtail.training.train import precision_of

MINUTES = 10.0  # for fine-tuning on a CPU
TRIAL = 0.85  # share of the training images used in the trial of fine-tuning
EPOCHS = 10  # at most, if there is time
SAMPLE = 16  # images for a measurement of speed
TRIES = 3  # of which the fastest counts, since other programs slow some of them down


@dataclass(frozen=True)
class Plan:
    """How long training on own images takes.

    Args:
        feature_seconds: time for the features that are not in the cache.
        epoch_seconds: time for an epoch of fine-tuning.
        epochs: epochs of fine-tuning that fit into the time; 0: none.
        minutes: time limit for fine-tuning; None: no limit.
        precision: precision of fine-tuning; on a CPU, the faster one.
        passes: number of fine-tunings; with a trial, which uses part of the images, 1 + `TRIAL`.
    """

    feature_seconds: float
    epoch_seconds: float
    epochs: int
    minutes: float | None
    precision: str
    passes: float = 1 + TRIAL

    @property
    def tuning_seconds(self) -> float:
        """Time for fine-tuning, and for its trial if there is one."""
        return self.epochs * self.epoch_seconds * self.passes


def make_plan(config: Config, dataset: Dataset) -> Plan:
    """Measures the speed on a few batches, and plans the time."""
    device = device_of(config)
    backbone = create_backbone(config.backbone, pretrained=bool(config.pretrained))
    features = _feature_seconds(backbone, dataset)
    minutes = config.minutes
    if minutes is None and device.type == "cpu":
        minutes = MINUTES
    if config.tune == "head":
        return Plan(features, 0.0, 0, minutes, precision_of(config))
    batch = fine_tuning(config, 1, len(dataset.train)).batch_size
    precisions = {precision_of(config)}
    if config.precision == "auto" and device.type == "cpu":  # bf16 slows some networks down
        precisions.add("32-true")
    cost = passes_per_image(config)
    epoch, precision = min(
        (cost * _epoch_seconds(backbone, dataset, batch, device, precision), precision)
        for precision in precisions
    )
    passes = 1 + TRIAL if config.tune == "auto" else 1.0
    epochs = EPOCHS if minutes is None else int(min(EPOCHS, 60 * minutes / epoch / passes))
    if not config.is_open("epochs") and (config.epochs or config.tune == "auto"):
        epochs = config.epochs  # requested, however long it takes
    elif config.tune != "auto":
        epochs = max(1, epochs)
    return Plan(features, epoch, epochs, minutes, precision, passes)


def passes_per_image(config: Config) -> int:
    """Passes through the network per image of an epoch: views, SAM, and a stage before it."""
    passes = 1
    if fine_tunes_method(config):
        found = find_method(config.method["name"])
        passes = found.num_views if issubclass(found, Method) else 1
        stage = Stage.of(config, CLASSIFICATION.methods)  # type: ignore[type-abstract]
        passes += bool(stage and stage.trained)
    return passes * (2 if config.sam else 1)


def describe(config: Config, dataset: Dataset, plan: Plan, method: str, folder: Path) -> list[str]:
    """The plan as lines of text.

    Args:
        config: settings of the run.
        dataset: the images.
        plan: the plan.
        method: method of fine-tuning, or `auto`.
        folder: the run folder.
    """
    counts = dataset.prior.counts
    rarest = dataset.class_names[int(counts.argmin())]
    images = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    device = "GPU" if torch.cuda.is_available() and config.device != "cpu" else "CPU"
    weights = "weights from timm's hub"
    if config.backbone == BACKBONE:
        weights = "weights installed with longtail"
    elif is_own_backbone(config.backbone):
        weights = "your own"
    features = duration(plan.feature_seconds) if plan.feature_seconds else "in the cache"
    lines = [
        f"{config.data.source}: {images} images, {dataset.num_classes} classes of "
        f"{counts.max():,} to {counts.min():,} training images (rarest: {rarest})",
        f"{device}, {available_cpus()} processors; backbone {config.backbone}, {weights}; "
        f"images of {dataset.image_size} pixels",
        f"1. features of all images: {features}; a head on them: seconds",
    ]
    if config.backbone == BACKBONE:
        lines[1] += f" (stronger, from a network: --backbone {STRONGER})"
    if config.tune == "head":
        lines.append("2. no fine-tuning (--tune head)")
    elif plan.epochs:
        tuned = fine_tuning(config, plan.epochs, len(dataset.train))
        kept = "kept if it pays" if config.tune == "auto" else f"--tune {config.tune}"
        epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
        named = "" if method == "auto" else f" with {method}"
        lines.append(
            f"2. fine-tuning{named}, {epochs}: {duration(plan.tuning_seconds)}; {kept} "
            f"({tuned.optimizer}, lr {tuned.lr:g}, batches of {tuned.batch_size})"
        )
    else:
        needed = duration(plan.epoch_seconds * (1 + TRIAL))
        limit = "the minute" if plan.minutes == 1 else f"the {plan.minutes:g} minutes"
        lines.append(
            f"2. no fine-tuning: an epoch with its trial takes {needed}, more than {limit} of "
            "--minutes"
        )
    return [*lines, f"run: {folder}"]


def _feature_seconds(backbone: Backbone, dataset: Dataset) -> float:
    """Seconds for the features that are not in the cache."""
    crop = evaluation_crop(dataset)
    network, cache = cached_network(dataset, backbone, crop)
    missing = 0
    for split in dataset.splits.values():
        missing += len(split) - len(cache.load(keys_of(split)))
    cache.close()
    if not missing:
        return 0.0
    count = min(max(SAMPLE, available_cpus()), len(dataset.train))
    sample = torch.linspace(0, len(dataset.train) - 1, count).long()
    few: Split = dataset.train.take(sample)
    return missing * fastest_of(TRIES, lambda: list(outputs(network, few, crop))) / count


def _epoch_seconds(
    backbone: Backbone, dataset: Dataset, batch: int, device: torch.device, precision: str
) -> float:
    """Seconds for an epoch, from the forward and backward pass of a batch, smaller on a CPU."""
    size = dataset.image_size
    backbone.to(device).eval()
    if device.type == "cpu":
        keep_freed_memory()
        batch = min(batch, SAMPLE)
    images = torch.zeros(batch, 3, size, size, dtype=torch.uint8, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = backbone(images).float().square().mean()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return fastest_of(1 + TRIES, step) * len(dataset.train) / batch  # the first one warms up


def fastest_of(tries: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def duration(seconds: float) -> str:
    """A rounded duration as text."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} minutes"
