"""The settings of a run."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.models import Tuning
from longtail.ranges import MAX_COUNT, check_range

Logger = Literal["none", "tensorboard", "wandb"]
STAGES = ("teacher_stage", "first_stage")  # settings of a run's stages
# Ranges of the numbers; None is not checked.
RANGES: dict[str, dict[str, Any]] = {
    "lora_rank": {"least": 1, "most": 1024},
    "mix_alpha": {"above": 0},
    "minutes": {"above": 0},
    "epochs": {"least": 0, "most": MAX_COUNT},
    "batch_size": {"least": 2, "most": MAX_COUNT},
    "lr": {"least": 0},
    "lr_batch": {"least": 1, "most": MAX_COUNT},
    "backbone_lr": {"least": 0},
    "layer_decay": {"above": 0, "most": 1},
    "ema": {"least": 0, "below": 1},
    "sam": {"least": 0},
    "label_smoothing": {"least": 0, "below": 1},
    "momentum": {"least": 0, "below": 1},
    "weight_decay": {"least": 0},
    "warmup": {"least": 0, "below": 1},
    "warmup_start": {"least": 0, "most": 1},
    "seed": {"least": 0, "below": 2**63},
    "devices": {"least": 1, "most": 1024},
    "nodes": {"least": 1, "most": 1024},
    "checkpoint_every": {"least": 1, "most": MAX_COUNT},
}
NOT_OF_A_STAGE = {"data", "task", "trust", "given"}  # a stage has those of the run
# Settings that may change when a run is resumed.
MAY_DIFFER = {"device", "devices", "nodes", "precision", "checkpoint_every", "logger", "trust"}


@dataclass
class Config:
    """Training options.

    Args:
        data: source of the images (`--data.*`).
        method: `name` and the settings of the training method (`--method.*`).
        backbone: a name from `longtail list backbones`, a timm name, or an import path; `auto`
            is efficientnet_lite0 with its weights for your own images above 16 pixels; from
            scratch, smallnet up to 16 pixels, resnet32 up to 64, else timm's resnet50.
        pretrained: start from pretrained weights of the backbone; default: yes for your own images
            if the backbone has them, no for the data sets of papers.
        tune: which part of the backbone is trained: `all` of it, none (`head`: a solver fits a head
            on its features), its normalisation layers (`norm`), or low-rank additions to a
            transformer's layers (`lora`), which are merged into its weights at the end. `auto`:
            `all`, or for pretrained weights on your own images, `head` and then `all` if it pays.
        lora_rank: rank of LoRA's matrices.
        views: name of the augmentation of the images, from `longtail list views`, or a list with
            one name per view of the method.
        mix: Mixup or CutMix of the view that the classifier sees.
        mix_alpha: alpha of the Beta distribution that mixing weights are drawn from.
        minutes: time limit for fine-tuning pretrained weights on your own images; default: 10 on a
            CPU, none on a GPU.
        epochs: passes over the training set; 0 for a method that has nothing to train.
        batch_size: images per step, over all processes.
        lr: learning rate after warm-up.
        lr_batch: batch size for which `lr` was tuned; with another batch size the rate is `lr *
            batch_size / lr_batch`, the linear rule of Goyal et al., 2017, arXiv 1706.02677 (a much
            larger batch needs a warm-up of a few epochs). Default: `lr` is not scaled.
        optimizer: `sgd`, or `adamw` (Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101).
        backbone_lr: multiplier on the backbone's learning rate.
        layer_decay: multiplier on the learning rate from each block of the backbone to the one
            below it.
        ema: decay per step of a moving average of the trained weights, which replaces them at the
            end; 0: none. Default: none; for pretrained weights on your own images, an average over
            the last tenth of training.
        sam: radius of sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412),
            which takes two passes per step; 0.05 is common, 0: none.
        label_smoothing: share of each target that is spread evenly over all classes, for methods
            with a cross-entropy over classes; it makes the probabilities less sharp.
        fixed_norm: keep the backbone in evaluation mode, which fixes its batch norm statistics.
        start: run folder or file of weights whose model training starts from; with a two-stage
            method, its first stage starts from it.
        momentum: momentum of stochastic gradient descent.
        nesterov: use Nesterov momentum.
        weight_decay: weight decay of all weights except a learned temperature.
        schedule: `step` multiplies the rate by 0.1 at every milestone, `cosine` decays to 0,
            `constant` does not change it.
        warmup: fraction of training during which the rate rises linearly.
        warmup_start: fraction of the rate at which warm-up starts.
        milestones: fractions of training at which `step` reduces the rate.
        sampling: `shuffle` draws every image once per epoch; `class_balanced` draws every class
            equally often, `square_root` in proportion to the square root of its count.
        teacher: `train` trains a teacher first, as a stage of the run; `none` uses a momentum
            encoder instead; a run folder or a file of weights uses its model, several of them the
            mean of their models.
        teacher_stage: settings of the teacher's training that differ from the run's.
        first: first stage of a two-stage method: `train` trains it as a stage of the run; a run
            folder or a file of weights uses its model.
        first_stage: settings of the first stage's training that differ from the run's.
        seed: seed of the weights, the order of the images and their views.
        precision: precision of the network: `32-true`, `bf16-mixed`, ...; `auto` is bf16 if the
            hardware supports it; on a CPU, fine-tuning on your own images measures both.
        device: `auto`, `cpu`, `cuda`, ...
        devices: processes per machine, one per device; under torchrun, its number by default.
        nodes: number of machines.
        checkpoint_every: epochs between checkpoints.
        logger: `tensorboard` or `wandb` to log epochs there as well as to `metrics.jsonl`.
        task: name of the task.
        trust: import paths of your own code that files may name: a `--config`, or the model of a
            run folder given as `teacher`, `first` or `start`. Not recorded in the run.
        given: names of settings that were given, those of stages as `first_stage.epochs`, so that a
            value which equals the default is kept where pretrained weights have other defaults; see
            `is_open`. Not an option.
    """

    data: DataConfig
    method: dict[str, Any]
    backbone: str = "auto"
    pretrained: bool | None = None
    tune: Tuning | Literal["auto"] = "auto"
    lora_rank: int = 8
    views: str | list[str] = "weak"
    mix: Literal["none", "mixup", "cutmix"] = "none"
    mix_alpha: float = 1.0
    minutes: float | None = None
    epochs: int = 200
    batch_size: int = 128
    lr: float = 0.1
    lr_batch: int | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    ema: float | None = None
    sam: float = 0.0
    label_smoothing: float = 0.0
    fixed_norm: bool = False
    start: str | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: float = 0.025
    warmup_start: float = 0.0
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9])
    sampling: Literal["shuffle", "class_balanced", "square_root"] = "shuffle"
    teacher: str | list[str] = "none"
    teacher_stage: dict[str, Any] = field(default_factory=dict)
    first: str = "train"
    first_stage: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    checkpoint_every: int = 1
    logger: Logger = "none"
    task: str = "classification"
    trust: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks the ranges of the values."""
        self.views = [self.views] if isinstance(self.views, str) else self.views
        teachers = [self.teacher] if isinstance(self.teacher, str) else self.teacher or []
        several = len(teachers) > 1
        repeated = len({*map(os.path.realpath, teachers)}) < len(teachers)
        mixed = several and not {"train", "none"}.isdisjoint(teachers)
        if not teachers or repeated or mixed:
            raise InputError(
                "teacher must be train, none, or one or more run folders or files of weights, each "
                f"named once, got {self.teacher}"
            )
        self.teacher = teachers if several else teachers[0]
        for name, bounds in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_range(name, value, **bounds)
        if self.precision in ("bf16-true", "16-true"):
            raise InputError(
                "precision must keep the weights in float32 (32-true, bf16-mixed, 16-mixed), "
                f"got {self.precision}"
            )
        known = {setting.name for setting in fields(self)} - NOT_OF_A_STAGE
        for name in STAGES:
            unknown = sorted(set(getattr(self, name)) - known)
            if unknown:
                raise InputError(
                    f"{name} must hold settings of a run without data, task and trust, "
                    f"got {unknown}"
                )
        if self.nesterov and not self.momentum:
            raise InputError("momentum must be above 0 where nesterov is set, got 0")
        falls = any(later < earlier for earlier, later in pairwise(self.milestones))
        if falls or any(not 0 < m < 1 for m in self.milestones):
            raise InputError(
                f"milestones must lie between 0 and 1 and must not decrease, got {self.milestones}"
            )

    @property
    def stored(self) -> dict[str, Any]:
        """The settings as stored in a run folder.

        Without `trust`, which applies only to the person who set it.
        Without `given`: every setting in a run folder counts as given.
        """
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del settings["trust"], settings["given"]
        return settings

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values of the settings that have one, for run folders of older versions."""
        found: dict[str, Any] = {}
        for setting in fields(self):
            if setting.default is not MISSING:
                found[setting.name] = setting.default
            elif setting.default_factory is not MISSING:
                found[setting.name] = setting.default_factory()
        return found | {"ema": 0.0}  # which `settle_common` makes from the default

    def is_open(self, name: str) -> bool:
        """Whether a setting was left at its default."""
        return name not in self.given and getattr(self, name) == getattr(type(self), name)

    @property
    def trusted(self) -> list[str]:
        """Import paths that files of the run may name; those in the settings come from the user."""
        return [self.backbone, *self.trust]


def changed_settings(
    before: Mapping[str, Any],
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> list[str]:
    """Describes settings with which a run would be trained differently.

    Args:
        before: its settings, as `config.yaml` has them.
        settings: the other settings.
        defaults: values of settings that `before` may lack if an older version wrote it.
    """
    gone = [name for name in before if name not in settings]
    before = {**(defaults or {}), **before}
    changed = [
        text
        for name, value in settings.items()
        if name not in MAY_DIFFER
        for text in _changes(name, before.get(name), value)
    ]
    return changed + [f"{name} was {before[name]!r} and is not a setting any more" for name in gone]


def _changes(name: str, before: Any, value: Any) -> Iterator[str]:
    """Describes how a setting differs; of a mapping, only the entries that do."""
    old, new = _lasting(before), _lasting(value)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _changes(f"{name}.{key}", before.get(key), value.get(key))
    elif old != new:
        yield f"{name} was {before!r} and is {value!r}"


def _lasting(value: Any) -> Any:
    """A setting without what may change: paths of the data, workers, spelling of paths."""
    if isinstance(value, Mapping):
        left_out = ("root", "workers", "check")
        return {
            name: _lasting(inner)
            for name, inner in value.items()
            if name not in left_out and inner is not None
        }
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    if isinstance(value, str) and os.path.exists(value):
        return os.path.realpath(value)
    return value
