"""The settings of a run."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.models import Tuning
from longtail.training.loggers import Logger

STAGES = ("teacher_stage", "first_stage")  # settings of a stage before the run


@dataclass
class Config:
    """Everything that decides what a training run does; `config.yaml` of a run holds it all.

    Args:
        data: where the images come from (`--data.*`).
        method: `name` and the settings of the training method (`--method.*`).
        backbone: one of `longtail list`, a timm name, or an import path; `auto` goes by the image
            size (up to 16 pixels: smallnet, up to 64: resnet32, else timm's resnet50).
        pretrained: start from the weights that timm has for the backbone.
        tune: what of the backbone is trained: `all` of it, nothing (`head`), its normalisation
            layers (`norm`), or low-rank additions to a transformer's layers (`lora`), which are
            merged into its weights at the end.
        lora_rank: rank of those additions.
        views: name of the view that the images are seen in, or a list with one name for each view
            of the method.
        mix: Mixup or CutMix of the view that the classifier sees.
        mix_alpha: of mix: the shares of the two images are drawn from Beta(alpha, alpha).
        epochs: passes over the training set; 0 for a method that trains nothing.
        batch_size: images of a step, over all processes.
        lr: learning rate after the warm-up.
        lr_batch: images of a step that `lr` is meant for: with another batch size the rate is
            `lr * batch_size / lr_batch`, the linear rule of Goyal et al., 2017, arXiv 1706.02677
            (it wants a warm-up of some epochs where the batch is much larger). `lr` as it is when
            not given.
        backbone_lr: learning rate of the backbone over that of the rest.
        momentum: of stochastic gradient descent.
        nesterov: Nesterov's form of the momentum.
        weight_decay: on all weights but a learned temperature.
        schedule: `step` multiplies the rate by 0.1 at every milestone, `cosine` falls to 0,
            `constant` stays.
        warmup: share of the training in which the rate rises linearly.
        warmup_start: share of the rate from which it rises.
        milestones: shares of the training after which `step` acts.
        sampling: `shuffle` sees every image once an epoch; `class_balanced` draws every class
            equally often, `square_root` by the root of its count.
        teacher: `train` trains one first, as a stage of the run; `none` does without (momentum
            encoder); a run folder reuses its model.
        teacher_stage: settings in which the teacher's training differs from the run's.
        first: of a two-stage method: `train` trains its first stage as a part of the run; a run
            folder reuses its model.
        first_stage: settings in which the first stage's training differs from the run's.
        seed: of weights, order and views.
        precision: of the network: `32-true`, `bf16-mixed`, ...; `auto` is bf16 where the hardware
            has it.
        device: `auto`, `cpu`, `cuda`, ...
        devices: processes on each machine, one for each device; torchrun's number where it started
            them.
        nodes: machines.
        checkpoint_every: epochs between checkpoints.
        logger: shows the epochs in `tensorboard` or `wandb`, too; `metrics.jsonl` always has them.
    """

    data: DataConfig
    method: dict[str, Any]
    backbone: str = "auto"
    pretrained: bool = False
    tune: Tuning = "all"
    lora_rank: int = 8
    views: str | list[str] = "weak"
    mix: Literal["none", "mixup", "cutmix"] = "none"
    mix_alpha: float = 1.0
    epochs: int = 200
    batch_size: int = 128
    lr: float = 0.1
    lr_batch: int | None = None
    backbone_lr: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: float = 0.025
    warmup_start: float = 0.0
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9])
    sampling: Literal["shuffle", "class_balanced", "square_root"] = "shuffle"
    teacher: str = "none"
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

    def __post_init__(self) -> None:
        """Checks the values that no type can check."""
        self.views = [self.views] if isinstance(self.views, str) else self.views
        ones = dict.fromkeys(("checkpoint_every", "devices", "nodes", "lora_rank"), 1)
        for name, least in {"epochs": 0, "seed": 0, "batch_size": 2, **ones}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2^63, got {self.seed}")
        if self.precision in ("bf16-true", "16-true"):
            raise InputError(
                "precision must keep the weights in float32 (32-true, bf16-mixed, 16-mixed), "
                f"got {self.precision}"
            )
        known = {setting.name for setting in fields(self)} - {"data"}  # it sees the run's
        for name in STAGES:
            unknown = sorted(set(getattr(self, name)) - known)
            if unknown:
                raise InputError(f"{name} must hold settings of a run, got {unknown}")
        if self.lr_batch is not None and self.lr_batch < 1:
            raise InputError(f"lr_batch must be 1 or more, got {self.lr_batch}")
        if not self.mix_alpha > 0:
            raise InputError(f"mix_alpha must be above 0, got {self.mix_alpha}")
        for name in ("lr", "backbone_lr", "weight_decay", "momentum"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.nesterov and not self.momentum:
            raise InputError("momentum must be above 0 where nesterov is set, got 0")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup must be a share of the training, got {self.warmup}")
        if not 0 <= self.warmup_start <= 1:
            raise InputError(f"warmup_start must be in [0, 1], got {self.warmup_start}")
        if any(not 0 < m < 1 for m in self.milestones):
            raise InputError(f"milestones must lie between 0 and 1, got {self.milestones}")
