"""The settings of a run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from longtail.data import DataConfig, Sampler


@dataclass
class Config:
    """Everything that decides what a training run does; `config.yaml` of a run holds it all.

    Args:
        data: where the images come from (`--data.*`).
        method: `name` and the settings of the training method (`--method.*`).
        backbone: one of `longtail list`, a timm name, or an import path; `auto` goes by the image
            size (up to 16 pixels: smallnet, up to 64: resnet32, else timm's resnet50).
        pretrained: start from the weights that timm has for the backbone.
        views: name of the view that the images are seen in, or a list with one name for each view
            of the method.
        epochs: passes over the training set.
        batch_size: images of a step, over all processes.
        lr: learning rate after the warm-up.
        momentum: of stochastic gradient descent.
        nesterov: Nesterov's form of the momentum.
        weight_decay: on all weights but a learned temperature.
        schedule: `step` multiplies the rate by 0.1 at every milestone; `cosine` falls to 0.
        warmup: share of the training in which the rate rises linearly.
        milestones: shares of the training after which `step` acts.
        sampling: `shuffle` sees every image once an epoch; `class_balanced` draws every class
            equally often, `square_root` by the root of its count.
        teacher: `train` trains one first, as a stage of the run; `none` does without (momentum
            encoder); a run folder reuses its model.
        teacher_stage: settings in which the teacher's training differs from the run's.
        seed: of weights, order and views.
        precision: of the network: `32-true`, `bf16-mixed`, ...; `auto` is bf16 where the hardware
            has it.
        device: `auto`, `cpu`, `cuda`, ...
        checkpoint_every: epochs between checkpoints.
    """

    data: DataConfig
    method: dict[str, Any]
    backbone: str = "auto"
    pretrained: bool = False
    views: str | list[str] = "weak"
    epochs: int = 200
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup: float = 0.025
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9])
    sampling: Sampler = "shuffle"
    teacher: str = "none"
    teacher_stage: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        """Checks the values that no type can check."""
        self.views = [self.views] if isinstance(self.views, str) else self.views
        for name, least in (("epochs", 1), ("batch_size", 2), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "momentum"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be a share of the training, got {self.warmup}")
        if any(not 0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones must lie between 0 and 1, got {self.milestones}")
