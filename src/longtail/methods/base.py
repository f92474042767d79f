"""What a method is: which views it needs, what it trains, its loss, and what follows a step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.memory import gather_with_grad
from longtail.models import ImageClassifier


class Pairs:
    """What the first view of a batch is mixed with, by Mixup or CutMix.

    No tuple, in which Fabric would round the weights to the precision of the network.

    Args:
        other: (B,), class of the second image of each pair.
        weight: (B,), share of the first one, in [0, 1].
    """

    def __init__(self, other: Tensor, weight: Tensor) -> None:
        self.other, self.weight = other, weight


class Method(nn.Module, ABC):
    """One training method, whole: the loop calls `forward` and `after_step` and knows no more.

    A method's state (queue, averages, temperature) lies in parameters and buffers, so that
    `state_dict` is all that a checkpoint needs.

    The constructor of a method for whole images must have this signature; the settings are keywords
    with a type and a default, which the command line offers as options:

        def __init__(self, prior: ClassPrior, backbone: Backbone, *, setting: float = 1.0) -> None

    With `teacher_method` it takes `teacher: ImageClassifier | None = None` as well; with
    `first_method` the model of the first stage, `first: ImageClassifier`, in place of `backbone`.

    Attributes:
        name: the name on the command line.
        use: when to use it, for `longtail list` (default: the first sentence of the docstring).
        task: name of the task that it is for.
        num_views: views of every image that a step needs.
        expresses: the prior that the logits of `model` express after training: `source`,
            `uniform` or (C,) probabilities.
        mixes: whether `forward` takes `pairs`: whether a view serves the classifier alone.
        teacher_method: name and settings of the method that trains its teacher, as a stage of the
            run before; empty where it has no use for one.
        first_method: the method of the run's first stage, whose model is handed to the constructor
            as `first`; empty where there is one stage only.
        model: what is kept after training.
    """

    name: ClassVar[str]
    use: ClassVar[str]
    task: ClassVar[str] = "classification"
    num_views: ClassVar[int] = 1
    mixes: ClassVar[bool] = True
    teacher_method: ClassVar[Mapping[str, Any]] = {}
    first_method: ClassVar[str] = ""
    expresses: str | list[float]
    model: ImageClassifier

    @abstractmethod
    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            views: (V, B, 3, H, W) uint8, V = `num_views` views of the batch.
            target: (B,) class index.
            index: (B,) place of each image in its source.

        Methods with `mixes` take `pairs` too: what the first view is mixed with, or None.

        Returns: "loss", the scalar to minimise, and whatever scalars are worth logging.
        """

    def after_step(self) -> None:
        """What follows the optimiser's step, such as an average of the weights."""

    def set_progress(self, fraction: float) -> None:
        """Called before every epoch with the share of the training that is done, in [0, 1)."""

    def no_weight_decay(self) -> list[nn.Parameter]:
        """Parameters that weight decay leaves alone."""
        return []


def check_scale(loss: ClassificationLoss, head: nn.Module) -> None:
    """Refuses a loss with margins in the units of one head for another.

    Raises:
        ValueError: when the loss says the scale of its cosine head, and this is none of that scale.
    """
    own, wanted = getattr(head, "scale", None), getattr(loss, "scale", None)
    if wanted not in (None, own):
        found = "a linear head" if own is None else f"a cosine head of scale {own:g}"
        raise InputError(
            f"{type(loss).__name__} must have a cosine head of its scale, {wanted:g}, got {found}"
        )


def classifier_loss(
    criterion: ClassificationLoss, logits: Tensor, target: Tensor, pairs: Pairs | None
) -> Tensor:
    """Loss of the classifier's view, whether it is mixed or not.

    Args:
        criterion: of the classifier.
        logits: (B, C), of all processes.
        target: (B,) class index, of all processes.
        pairs: of this process, or none.
    """
    if pairs is None:
        loss: Tensor = criterion(logits, target)
        return loss
    other, weight = gather_with_grad(pairs.other), gather_with_grad(pairs.weight)
    weights = torch.cat([weight, 1 - weight])
    both: Tensor = criterion(torch.cat([logits, logits]), torch.cat([target, other]), weights)
    return both
