"""Settings for training on a user's own images: backbone, weights, image size, fine-tuning."""

from dataclasses import replace
from typing import Any

from longtail.data import BUILT_IN, Dataset
from longtail.data.images import natural_size
from longtail.data.records import Records
from longtail.models import backbone_names, create_backbone, is_own_backbone, is_timm_model
from longtail.models.create import takes_pretrained
from longtail.names import imported
from longtail.recipes import TWO_STAGES
from longtail.training import Config

BACKBONE = "efficientnet_lite0"
STRONGER = "convnext_tiny.fb_in22k_ft_in1k"  # of timm, for the plan to name
TINY = 16  # pixels up to which images say nothing to pretrained weights
BATCH = 32

# Settings of fine-tuning where the user leaves the defaults of `Config`. The rates are a thousandth
# of those of training from scratch; see docs/pictures.md for how they were chosen.
FINE_TUNING: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 2e-4,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup": 0.1,
    "batch_size": BATCH,
    "fixed_norm": True,
}
OPEN = (*FINE_TUNING, "epochs")  # what the plan decides where the user leaves it open


def resolve(config: Config, source: Dataset | Records) -> Config:
    """Chooses backbone, weights and image size if the settings leave them open.

    Only for classification of own images above 16 pixels; the data sets of papers keep their
    settings, as does a backbone without pretrained weights.

    Args:
        config: the settings.
        source: what `read_source` returned for `config.data`.

    Returns: the settings; `pretrained` is true or false.
    """
    scratch = replace(config, pretrained=bool(config.pretrained))
    if not may_use_features(config):
        return scratch
    if (config.data.image_size or _size_of(source)) <= TINY:
        return scratch
    backbone = BACKBONE if config.backbone == "auto" else config.backbone
    if config.pretrained is None and not has_weights(backbone):
        return scratch
    size = config.data.image_size or create_backbone(backbone).image_size
    data = replace(config.data, image_size=size)
    if data.check is None:
        data.check = "exists"  # every file is decoded for the features, or reported
    config = replace(config, backbone=backbone, pretrained=True, data=data)
    return _without_epochs_of_recipe(config)


def fine_tunes_method(config: Config) -> bool:
    """Whether the user's method is fine-tuned whatever it is, and a head only compared with it."""
    return config.tune not in ("head", "auto") and config.method["name"] != "auto"


def _without_epochs_of_recipe(config: Config) -> Config:
    """The settings of a two-stage method without epochs that are for training from scratch."""
    recipe = TWO_STAGES.get(config.method["name"])
    if recipe is None:
        return config
    if "epochs" not in config.given and config.epochs == recipe["epochs"]:
        config = replace(config, epochs=Config.epochs)
    stage = dict(config.first_stage)
    if "first_stage.epochs" not in config.given and stage.items() >= recipe["first_stage"].items():
        del stage["epochs"]
    return replace(config, first_stage=stage)


def may_use_features(config: Config) -> bool:
    """Whether training starts with features, if there are pretrained weights for the images."""
    return are_own_images(config) and config.pretrained is not False


def are_own_images(config: Config) -> bool:
    """Whether the images are a user's own, each of one class, not a data set of papers."""
    return config.task == "classification" and config.data.source not in BUILT_IN


def has_weights(backbone: str) -> bool:
    """Whether there are pretrained weights for a backbone, installed or not."""
    if backbone in backbone_names():
        return backbone == BACKBONE
    if is_own_backbone(backbone):
        make = imported(backbone, "backbone")
        return callable(make) and takes_pretrained(make)
    if not is_timm_model(backbone):
        return False
    import timm

    known = timm.get_pretrained_cfg(backbone)
    return known is not None and known.has_weights


def _size_of(source: Dataset | Records) -> int:
    """Size of the images in pixels."""
    if isinstance(source, Dataset):
        return source.image_size
    return natural_size(source.paths)


def fine_tuning(config: Config, epochs: int, images: int) -> Config:
    """Settings of fine-tuning; those that the user gave are kept.

    Args:
        config: resolved settings.
        epochs: epochs of fine-tuning; for a two-stage method, of its first stage.
        images: number of training images.
    """
    wanted = {**FINE_TUNING, "epochs": epochs}
    if two_stages := TWO_STAGES.get(config.method["name"]):
        wanted["epochs"] = min(epochs, two_stages["epochs"])
        config = replace(config, first_stage={"epochs": epochs, **config.first_stage})
    config = replace(config, **{name: wanted[name] for name in OPEN if config.is_open(name)})
    batch = min(config.batch_size, images)
    steps = max(1, epochs * (images // batch))
    # The average spans a tenth of training.
    ema = max(0.0, 1 - 10 / steps) if config.ema is None else config.ema
    return replace(config, batch_size=batch, ema=ema)
