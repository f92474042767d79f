"""The stage before: a run's teacher, or what a two-stage method trains first."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from longtail.data import Dataset
from longtail.methods import Method, create_method, find_method
from longtail.models import ImageClassifier, create_backbone, tune_backbone
from longtail.prior import ClassPrior
from longtail.training.config import Config
from longtail.training.run import Run

# The classifier's part of GML's loss alone: what the paper trains its teachers with.
TEACHER_METHOD = {"name": "logit_adjust", "head": "cosine"}


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
        found = find_method(name)
        own = found if issubclass(found, Method) else Method
        if config.teacher != "none" and not own.wants_teacher:
            raise ValueError(f"method {name!r} has no use for a teacher: --teacher none")
        if config.first != "train" and not own.first_method:
            raise ValueError(f"method {name!r} has no first stage: leave --first out")
        alone: dict[str, Any] = {"teacher": "none", "teacher_stage": {}, "first_stage": {}}
        if own.first_method:
            changes = {"method": {"name": own.first_method}, "sampling": "shuffle"}
            changes |= config.first_stage
            own_backbone = changes.get("backbone", config.backbone)
            if own_backbone != config.backbone:
                raise ValueError(
                    f"first_stage.backbone must be the run's, {config.backbone!r}, "
                    f"got {own_backbone!r}"
                )
            return cls("first", config.first, replace(config, **{**alone, **changes}))
        if config.teacher == "none":
            return None
        changes = {"method": TEACHER_METHOD, **config.teacher_stage}
        return cls("teacher", config.teacher, replace(config, **{**alone, **changes}))

    def untrained(self, dataset: Dataset) -> ImageClassifier:
        """The network that the stage trains."""
        # Without LoRA: a run's model is saved with its backbone as an ordinary one.
        return make_method(replace(self.config, tune="all"), dataset.prior).model

    def model_of_run(self, dataset: Dataset) -> ImageClassifier:
        """The model of the run that the settings name.

        Raises:
            ValueError: when it was trained on other classes, or has another backbone, which a
                two-stage method would keep.
        """
        run = Run(self.given)
        run.check_classes(dataset.class_names, self.name)
        card = run.model_card()
        if self.name == "first" and card["backbone"] != self.config.backbone:
            raise ValueError(
                f"backbone must be that of the first stage {run.folder}, {card['backbone']!r}, "
                f"got {self.config.backbone!r}"
            )
        return run.model()


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
    power = {"class_balanced": 0.0, "square_root": 0.5}[sampling]
    own = {"source": prior.probabilities, "uniform": torch.ones_like(prior.probabilities)}
    said = own[expresses] if isinstance(expresses, str) else torch.tensor(expresses)
    mass = said.double() * prior.probabilities.double() ** (power - 1)
    shares: list[float] = (mass / mass.sum()).tolist()
    return shares
