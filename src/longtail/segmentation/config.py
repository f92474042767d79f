"""The settings of a segmentation run."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from longtail.errors import InputError
from longtail.models import Tuning
from longtail.ranges import MAX_SIDE, check_range
from longtail.segmentation.layouts import PixelDataConfig
from longtail.training import Config

# Settings of classification that have no meaning for pixels, or none yet.
WITHOUT_EFFECT = {
    "tune",
    "lora_rank",
    "minutes",
    "fixed_norm",
    "start",
    "mix",
    "mix_alpha",
    "first",
    "first_stage",
}


@dataclass
class PixelConfig(Config):
    """Training options for segmentation.

    Settings of `Config` that are not listed here have no effect in segmentation, and are rejected.

    Args:
        data: source of images and masks (`--data.*`).
        method: `name` and the settings of the training method (`--method.*`).
        backbone: a dense backbone from `longtail list`, a timm name, or an import path.
        decoder: decoder on a timm encoder: `atrous` (DeepLabV3+) or `pyramid`.
        pretrained: start from timm's pretrained weights of the encoder.
        views: augmentation of the images with their masks: `none`, `weak` (scale, crop, flip) or
            `strong` (and colours).
        crop: height and width of a training crop; default: those of the images.
        epochs: passes over the training set.
        batch_size: images per step, over all processes.
        lr: learning rate after warm-up.
        lr_batch: batch size for which `lr` was tuned; see `Config`.
        backbone_lr: multiplier on the backbone's learning rate.
        momentum: momentum of stochastic gradient descent.
        nesterov: use Nesterov momentum.
        weight_decay: weight decay of all weights except a learned temperature.
        optimizer: `sgd` or `adamw`.
        layer_decay: multiplier on the learning rate from each block of the encoder to the one
            below it.
        ema: decay per step of a moving average of the trained weights, which replaces them at the
            end; 0: none.
        sam: radius of sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412),
            which takes two passes per step; 0: none.
        label_smoothing: share of each target that is spread evenly over all classes, for methods
            with a cross-entropy over classes.
        schedule: `step` multiplies the rate by 0.1 at every milestone, `cosine` decays to 0,
            `constant` does not change it.
        warmup: fraction of training during which the rate rises linearly.
        warmup_start: fraction of the rate at which warm-up starts.
        milestones: fractions of training at which `step` reduces the rate.
        sampling: `shuffle` draws every image once per epoch; `class_balanced` and `square_root`
            draw by the rarest class in an image.
        teacher: `train` trains a teacher first, as a stage of the run; `none` uses a momentum copy
            instead; a run folder uses its model.
        teacher_stage: settings of the teacher's training that differ from the run's.
        prior_power: predict for the pixel prior to this power: 1 is that of the training set, 0 the
            uniform prior; in between, rare classes get more than their share. Default: the prior
            that the method's logits express.
        flip_test: average the logits with those of the mirrored image.
        window: height and width of sliding windows for predicting large images; default: whole
            images.
        seed: seed of the weights, the order of the images and their views.
        precision: precision of the network in training: `32-true`, `bf16-mixed`, ...; `auto` is
            bf16 if the hardware supports it.
        device: `auto`, `cpu`, `cuda`, ...
        devices: processes per machine, one per device; under torchrun, its number by default.
        nodes: number of machines.
        checkpoint_every: epochs between checkpoints.
        logger: `tensorboard` or `wandb` to log epochs there as well as to `metrics.jsonl`.
        task: `segmentation`.
    """

    data: PixelDataConfig  # type: ignore[assignment]  # of pixels, not of images
    backbone: str = "small_unet"
    decoder: Literal["atrous", "pyramid"] = "atrous"
    pretrained: bool | None = False
    tune: Tuning | Literal["auto"] = "all"
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
    task: str = "segmentation"

    def __post_init__(self) -> None:
        """Checks the ranges of the values."""
        super().__post_init__()
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name in WITHOUT_EFFECT and value not in (setting.default, {}):
                raise InputError(f"{setting.name} has no effect in segmentation, got {value!r}")
        check_size("crop", self.crop)
        check_size("window", self.window)
        if len(self.views) != 1:
            raise InputError(f"views must be one name for segmentation, got {self.views}")
        if self.prior_power is not None:
            check_range("prior_power", self.prior_power, least=0)


def check_size(name: str, size: Sequence[int] | None) -> None:
    """Rejects a height and width that are too small for a network, or larger than any image.

    Raises:
        InputError: when they are not two numbers from 16 to 8,192.
    """
    if size is not None and not (len(size) == 2 and min(size) >= 16 and max(size) <= MAX_SIDE):
        raise InputError(
            f"{name} must be a height and a width from 16 to {MAX_SIDE:,}, got {list(size)}"
        )
