"""Settings that a run would not use."""

from collections.abc import Iterator, Mapping
from typing import Any

from longtail.errors import InputError
from longtail.training.config import Config

# Settings of training by steps, which the solver of a head on features does without.
OF_STEPS = (
    *("lora_rank", "views", "mix", "mix_alpha", "minutes", "epochs", "lr", "lr_batch"),
    *("optimizer", "backbone_lr", "layer_decay", "ema", "fixed_norm", "momentum", "nesterov"),
    *("weight_decay", "schedule", "warmup", "warmup_start", "milestones"),
)


def check_used(config: Config, recipe: Mapping[str, Any], *, fine_tunes: bool = False) -> None:
    """Rejects settings that the user gave although they have no effect.

    Args:
        config: settings of a new run.
        recipe: the recipe's settings, which the user has not asked for.
        fine_tunes: whether pretrained weights are fine-tuned if the time allows it.

    Raises:
        InputError: names the first setting.
    """
    usual = {**config.defaults, **recipe}
    for setting, why in _unused(config, fine_tunes):
        value = getattr(config, setting)
        plain = (None, config.defaults[setting], usual[setting], [usual[setting]])
        if setting in config.given and value not in plain:
            raise InputError(f"{setting} has no effect {why}, got {value}")


def _unused(config: Config, fine_tunes: bool) -> Iterator[tuple[str, str]]:
    """Names of settings without effect, and the reason.

    A stage has the settings of the run: what it decides otherwise is not looked at. Nor are the
    settings of training by steps in the copy of a run with a head on features, whose epochs are 0.
    """
    in_stage = {*config.first_stage, *config.teacher_stage}
    if config.tune == "head" and config.epochs and "tune" not in in_stage:
        yield from ((name, "with tune head") for name in OF_STEPS)
    if not fine_tunes:
        yield "minutes", "without fine-tuning from pretrained weights"
    if config.tune != "lora" and "tune" not in in_stage:
        yield "lora_rank", "without tune lora"
    if config.mix == "none" and "mix" not in in_stage:
        yield "mix_alpha", "without mix"
    if config.optimizer == "adamw" and "optimizer" not in in_stage:
        yield "momentum", "with optimizer adamw"
        yield "nesterov", "with optimizer adamw"
