"""The base class of training methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.memory import gather_with_grad
from longtail.models import ImageClassifier


class MixPartner:
    """The partners with which the first view of each image is mixed, by Mixup or CutMix.

    Not a tuple, since Fabric would round weights in a tuple to the precision of the network.

    Args:
        other: (B,), class index of the second image.
        weight: (B,), share of the first image, in [0, 1].
    """

    def __init__(self, other: Tensor, weight: Tensor) -> None:
        self.other, self.weight = other, weight


class Method(nn.Module, ABC):
    """A complete training method: the training loop only calls `forward` and `after_step`.

    A method's state (queue, averages, temperature) is in parameters and buffers, so that
    `state_dict` is all that a checkpoint needs.

    The constructor of a method for whole images must have this signature; the settings are keywords
    with a type and a default, which the command line offers as options:

        def __init__(self, prior: ClassPrior, backbone: Backbone, *, setting: float = 1.0) -> None

    With `teacher_method` it takes `teacher: ImageClassifier | None = None` as well; with
    `first_method` the model of the first stage, `first: ImageClassifier`, in place of `backbone`.

    Attributes:
        name: the name on the command line.
        use: when to use it, for `longtail list` (default: the first sentence of the docstring).
        task: name of its task.
        num_views: number of views of every image in a step.
        expresses: the prior that the logits of `model` express after training: `source`,
            `uniform` or (C,) probabilities.
        mixes: whether `forward` takes `partner`, which requires a view for the classifier alone.
        teacher_method: name and settings of the method that trains the teacher, in an earlier
            stage of the run; empty for a method without a teacher.
        first_method: the method of the run's first stage, whose model is passed to the constructor
            as `first`; empty for a method with one stage.
        model: the classifier that is kept after training.
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
            index: (B,) index of each image in the data set.

        Methods with `mixes` also take `partner`: the mixing partner of the first view, or None.

        Returns: "loss", the scalar to minimise, and further scalars to log.
        """

    @property
    def static(self) -> bool:
        """Whether all steps from now on run the same operations, on tensors of the same shapes.

        On a GPU such steps are recorded once and then replayed (`longtail.training.graphed`). False
        if shapes depend on the data, as after a selection by a mask.
        """
        return True

    def after_step(self) -> None:
        """Called after the optimiser's step, for example to update an average of the weights."""

    def set_progress(self, fraction: float) -> None:
        """Called before every epoch with the fraction of training that is done, in [0, 1)."""

    def no_weight_decay(self) -> list[nn.Parameter]:
        """Parameters without weight decay."""
        return []


def check_scale(loss: ClassificationLoss, head: nn.Module) -> None:
    """Checks that a loss whose margins assume the scale of a cosine head gets that head.

    Raises:
        ValueError: when the head is linear, or a cosine head of another scale.
    """
    own, wanted = getattr(head, "scale", None), getattr(loss, "scale", None)
    if wanted not in (None, own):
        found = "a linear head" if own is None else f"a cosine head of scale {own:g}"
        raise InputError(
            f"{type(loss).__name__} must have a cosine head of its scale, {wanted:g}, got {found}"
        )


def smooth_labels(method: Method, name: str, share: float) -> None:
    """Sets the label smoothing of a method's classification losses.

    Args:
        method: the method.
        name: its name.
        share: in [0, 1); 0: none.

    Raises:
        InputError: when the method has no loss that can be smoothed.
    """
    losses = [m for m in method.modules() if isinstance(m, ClassificationLoss)]
    if share and not losses:
        raise InputError(
            f"label_smoothing must be 0 for method {name!r}, which has no loss of classes alone, "
            f"got {share:g}"
        )
    for loss in losses:
        loss.smooth_labels(share)


def classifier_loss(
    criterion: ClassificationLoss, logits: Tensor, target: Tensor, partner: MixPartner | None
) -> Tensor:
    """Loss of the classifier's view, mixed or not.

    Args:
        criterion: loss of the classifier.
        logits: (B, C), from all processes.
        target: (B,) class index, from all processes.
        partner: mixing partner of the view in this process; None: not mixed.
    """
    if partner is None:
        loss: Tensor = criterion(logits, target)
        return loss
    other, weight = gather_with_grad(partner.other), gather_with_grad(partner.weight)
    weights = torch.cat([weight, 1 - weight])
    both: Tensor = criterion(torch.cat([logits, logits]), torch.cat([target, other]), weights)
    return both
