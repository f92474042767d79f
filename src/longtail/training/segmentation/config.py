"""The settings of a segmentation run."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from longtail.data.segmentation import PixelDataConfig
from longtail.errors import InputError
from longtail.training.config import Config

# Of the settings of a classification, those that have no meaning for pixels, or none yet.
WITHOUT_EFFECT = {
    "tune",
    "lora_rank",
    "mix",
    "mix_alpha",
    "first",
    "first_stage",
    "devices",
    "nodes",
}


@dataclass
class PixelConfig(Config):
    """Everything that decides what a segmentation run does; `config.yaml` of a run holds it all.

    Settings of `Config` that are not listed here have no effect in segmentation, and are refused.

    Args:
        data: where images and masks come from (`--data.*`).
        method: `name` and the settings of the training method (`--method.*`).
        backbone: a network for pixels of `longtail list`, a timm name, or an import path.
        decoder: on a timm encoder: `atrous` (DeepLabV3+) or `pyramid`.
        pretrained: start from the weights that timm has for the encoder.
        views: how pairs are seen: `none`, `weak` (scale, crop, flip) or `strong` (and colours).
        crop: height and width of a training crop; those of the images when not given.
        epochs: passes over the training set.
        batch_size: images of a step.
        lr: learning rate after the warm-up.
        lr_batch: images of a step that `lr` is meant for; see `Config`.
        backbone_lr: learning rate of the backbone over that of the rest.
        momentum: of stochastic gradient descent.
        nesterov: Nesterov's form of the momentum.
        weight_decay: on all weights but a learned temperature.
        schedule: `step` multiplies the rate by 0.1 at every milestone, `cosine` falls to 0,
            `constant` stays.
        warmup: share of the training with linear warm-up.
        milestones: shares of the training after which `step` acts.
        sampling: `shuffle` sees every image once an epoch; `class_balanced` and `square_root`
            draw by the rarest class in an image.
        teacher: `train` trains one first, as a stage of the run; `none` does without (momentum
            copy); a run folder reuses its model.
        teacher_stage: settings in which the teacher's training differs from the run's.
        prior_power: predict for the pixel prior to this power: 1 is the mix of the training set, 0
            the same for all classes, between them rare classes get more than their share. When not
            given, for what the method expresses.
        flip_test: average the logits with those of the mirrored image.
        window: height and width of sliding windows to predict large images in; whole images when
            not given.
        seed: of weights, order and views.
        precision: of the network in training: `32-true`, `bf16-mixed`, ...; `auto` is bf16 where
            the hardware has it.
        device: `auto`, `cpu`, `cuda`, ...
        checkpoint_every: epochs between checkpoints.
        logger: shows the epochs in `tensorboard` or `wandb`, too.
        task: `segmentation`.
    """

    data: PixelDataConfig  # type: ignore[assignment]  # of pixels, not of images
    backbone: str = "small_unet"
    decoder: Literal["atrous", "pyramid"] = "atrous"
    views: str | list[str] = "weak"
    crop: list[int] | None = None
    epochs: int = 100
    batch_size: int = 8
    lr: float = 0.05
    schedule: Literal["step", "cosine", "constant"] = "cosine"
    warmup: float = 0.03
    prior_power: float | None = None
    flip_test: bool = False
    window: list[int] | None = None
    task: Literal["segmentation"] = "segmentation"

    def __post_init__(self) -> None:
        """Checks the values that no type can check."""
        super().__post_init__()
        for setting in fields(Config):
            value = getattr(self, setting.name)
            if setting.name in WITHOUT_EFFECT and value not in (setting.default, {}):
                raise InputError(f"{setting.name} has no effect in segmentation, got {value!r}")
        if self.epochs < 1:
            raise InputError(f"epochs must be 1 or more for segmentation, got {self.epochs}")
        check_size("crop", self.crop)
        check_size("window", self.window)
        if len(self.views) != 1:
            raise InputError(f"views must be one name for segmentation, got {self.views}")
        if self.prior_power is not None and not self.prior_power >= 0:
            raise InputError(f"prior_power must be 0 or more, got {self.prior_power}")


def check_size(name: str, size: Sequence[int] | None) -> None:
    """Refuses what is no height and width that a network can see.

    Raises:
        ValueError: when there are not two numbers of 16 or more.
    """
    if size is not None and (len(size) != 2 or min(size) < 16):
        raise InputError(f"{name} must be a height and a width of 16 or more, got {list(size)}")
