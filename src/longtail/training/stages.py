"""Stages that a run trains before its method: a teacher or the first of two stages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from longtail.data.samplers import POWERS
from longtail.errors import InputError
from longtail.losses import LDAMLoss
from longtail.methods import Method, find_method
from longtail.prior import ClassPrior
from longtail.shift import expressed_prior
from longtail.training.card import check_classes
from longtail.training.config import Config


@dataclass(frozen=True)
class Stage:
    """A run that another run needs first, in its own folder inside the other's.

    Args:
        name: name of the folder: "teacher" or "first".
        given: ("train",), or existing run folders or files of weights whose models are used.
        config: settings with which it is trained.
    """

    name: str
    given: tuple[str, ...]
    config: Config

    @property
    def trained(self) -> bool:
        """Whether it is trained as part of the run."""
        return self.given == ("train",)

    @classmethod
    def of(cls, config: Config, methods: type[Method]) -> "Stage | None":
        """The stage of a run with these settings, if it has one.

        Args:
            config: settings of the run.
            methods: base class of the task's methods.

        Raises:
            InputError: when the settings ask for a stage that the method does not have, or for a
                first stage with a backbone other than the run's, which keeps it.
        """
        name = config.method["name"]
        found = find_method(name, methods)
        own = found if issubclass(found, Method) else Method
        if (config.teacher != "none" or config.teacher_stage) and not own.teacher_method:
            raise InputError(
                f"method {name!r} does not take a teacher; remove --teacher and --teacher-stage.*, "
                f"got {config.teacher!r} and {config.teacher_stage}"
            )
        if (config.first != "train" or config.first_stage) and not own.first_method:
            raise InputError(
                f"method {name!r} has no first stage; remove --first and --first-stage.*, "
                f"got {config.first!r} and {config.first_stage}"
            )
        if own.first_method:
            if config.start and config.first != "train":
                raise InputError(
                    f"start must not be given with first, whose backbone {name} keeps, got "
                    f"{config.start!r} and {config.first!r}"
                )
            changes = {"method": {"name": own.first_method}, "sampling": "shuffle", "mix": "none"}
            stage = cls("first", (config.first,), _changed(config, "first_stage", changes))
            if stage.config.backbone != config.backbone:
                raise InputError(
                    f"first_stage.backbone must be the run's, {config.backbone!r}, "
                    f"got {stage.config.backbone!r}"
                )
            return stage
        if config.teacher == "none":
            return None
        same = config.teacher_stage.get("backbone", config.backbone) == config.backbone
        own_settings = {
            "method": dict(own.teacher_method),
            "views": config.views[:1],  # as the classifier sees it
            "start": config.start if same else None,
        }
        given = [config.teacher] if isinstance(config.teacher, str) else config.teacher
        return cls("teacher", tuple(given), _changed(config, "teacher_stage", own_settings))

    def check(self, given: str, card: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        """Rejects a given model that cannot be this stage.

        Args:
            given: its run folder or file of weights.
            card: its card.
            class_names: class names of the data.

        Raises:
            InputError: when it was trained on other classes, or has another backbone, which a
                two-stage method would keep.
        """
        check_classes(card, class_names, f"{self.name} {given}")
        if self.name == "first" and card["backbone"] != self.config.backbone:
            raise InputError(
                f"backbone must be that of the first stage {given}, {card['backbone']!r}, "
                f"got {self.config.backbone!r}"
            )


def _changed(config: Config, stage: str, changes: Mapping[str, Any]) -> Config:
    """The run's settings with the changes of the stage, and with those given by the user."""
    alone: dict[str, Any] = {"teacher": "none", "teacher_stage": {}, "first_stage": {}}
    with errors_named(stage):
        return replace(config, **{**alone, **changes, **getattr(config, stage)})


@contextmanager
def errors_named(what: str) -> Iterator[None]:
    """Begins the message of input errors with what they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def expressed_after(method: Method, epochs: int) -> str | list[float]:
    """The prior that the logits of a method express after training in the loop.

    It tells the progress when an epoch starts, as the published code of LDAM does. If none starts
    after the fraction `deferred`, the weights never come, and the prior is that of the source.

    Args:
        method: the method.
        epochs: number of epochs; 0 if a head was fitted on features, with the weights.
    """
    loss = getattr(method, "loss", None)
    if epochs and isinstance(loss, LDAMLoss) and (epochs - 1) / epochs < loss.deferred:
        return "source"
    return method.expresses


def expressed_after_sampling(
    expresses: str | list[float], prior: ClassPrior, sampling: str
) -> str | list[float]:
    """The prior that logits express when classes are sampled more evenly than in the data.

    A method states what its logits express after training on the source prior, which is the prior
    in its loss. Other sampling shifts the logits by the ratio of the drawn prior to that prior.

    Args:
        expresses: what the method states: `source`, `uniform` or (C,) probabilities.
        prior: class prior of the training split.
        sampling: the sampling of the run.

    Examples:
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
    stated = expressed_prior(expresses, prior)
    mass = stated * prior.probabilities ** (POWERS[sampling] - 1)
    shares: list[float] = (mass / mass.sum()).tolist()
    return shares
