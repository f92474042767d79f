"""The stage before: a run's teacher, or what a two-stage method trains first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from longtail.data.samplers import POWERS
from longtail.errors import InputError
from longtail.methods import Method, create_method, find_method
from longtail.models import ImageClassifier, create_backbone, tune_backbone
from longtail.prior import ClassPrior
from longtail.shift import resolve_prior
from longtail.training.config import Config
from longtail.training.run import Run


@dataclass(frozen=True)
class Earlier:
    """The stage before, if the method has one."""

    name: str  # of its folder in the run's: "teacher" or "first"
    given: str  # "train", or the run folder whose model is taken
    config: Config  # with which it is trained

    @classmethod
    def of(cls, config: Config) -> "Earlier | None":
        """The stage before a run with these settings.

        Raises:
            ValueError: when a teacher or a first stage is asked for that the method has no use for,
                or one with another backbone than the run's, which is to keep it.
        """
        name = config.method["name"]
        found = find_method(name, getattr(config, "task", "classification"))
        own = found if issubclass(found, Method) else Method
        if (config.teacher != "none" or config.teacher_stage) and not own.teacher_method:
            raise InputError(
                f"method {name!r} has no use for a teacher: --teacher none, and no "
                f"--teacher_stage, got {config.teacher!r} and {config.teacher_stage}"
            )
        if (config.first != "train" or config.first_stage) and not own.first_method:
            raise InputError(
                f"method {name!r} has no first stage: leave --first and --first_stage out, "
                f"got {config.first!r} and {config.first_stage}"
            )
        if own.first_method:
            changes = {"method": {"name": own.first_method}, "sampling": "shuffle", "mix": "none"}
            stage = cls("first", config.first, _changed(config, "first_stage", changes))
            if stage.config.backbone != config.backbone:
                raise InputError(
                    f"first_stage.backbone must be the run's, {config.backbone!r}, "
                    f"got {stage.config.backbone!r}"
                )
            return stage
        if config.teacher == "none":
            return None
        # One view, as the classifier sees it.
        changes = {"method": dict(own.teacher_method), "views": config.views[:1]}
        return cls("teacher", config.teacher, _changed(config, "teacher_stage", changes))

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Names the stage in errors that its settings cause."""
        with _naming(f"{self.name}_stage"):
            yield

    def check_run(self, run: Run, class_names: tuple[str, ...]) -> None:
        """Refuses the run that the settings name where it cannot be this stage.

        Args:
            run: in the folder that is given.
            class_names: of the data.

        Raises:
            ValueError: when it was trained on other classes, or has another backbone, which a
                two-stage method would keep.
        """
        run.check_classes(class_names, self.name)
        card = run.model_card()
        if self.name == "first" and card["backbone"] != self.config.backbone:
            raise InputError(
                f"backbone must be that of the first stage {run.folder}, {card['backbone']!r}, "
                f"got {self.config.backbone!r}"
            )


def _changed(config: Config, stage: str, changes: Mapping[str, Any]) -> Config:
    """The settings of the stage before: the run's, but for what it is and what was asked for."""
    alone: dict[str, Any] = {"teacher": "none", "teacher_stage": {}, "first_stage": {}}
    with _naming(stage):
        changed = replace(config, **{**alone, **changes, **getattr(config, stage)})
        if not changed.epochs:
            raise InputError("epochs must be 1 or more, got 0")
    return changed


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{stage}: {error}") from error


def make_method(
    config: Config, prior: ClassPrior, earlier: ImageClassifier | None = None
) -> Method:
    """Makes backbone and method of a run; the same settings always give the same weights."""
    torch.manual_seed(config.seed)
    backbone = create_backbone(config.backbone, pretrained=config.pretrained)
    tune_backbone(backbone, config.tune, config.lora_rank)
    settings = {key: value for key, value in config.method.items() if key != "name"}
    return create_method(config.method["name"], settings, prior, backbone, earlier)


def expressed_after_sampling(
    expresses: str | list[float], prior: ClassPrior, sampling: str
) -> str | list[float]:
    """The prior that logits express when classes are drawn more evenly than the data have them.

    A method says what its logits express after training on the source prior, which is then in its
    loss. Other samples shift them by the ratio of what was drawn to that prior.

    Args:
        expresses: what the method says: `source`, `uniform` or (C,) probabilities.
        prior: of the training set.
        sampling: of the run.

    Example:
        >>> prior = ClassPrior([3, 1])
        >>> expressed_after_sampling("source", prior, "class_balanced")
        'uniform'
        >>> expressed_after_sampling("uniform", prior, "class_balanced")
        [0.25, 0.75]
    """
    if sampling == "shuffle":
        return expresses
    if expresses == "source" and sampling == "class_balanced":
        return "uniform"
    said = resolve_prior(expresses, prior, prior.num_classes)
    mass = said * prior.probabilities ** (POWERS[sampling] - 1)
    shares: list[float] = (mass / mass.sum()).tolist()
    return shares
