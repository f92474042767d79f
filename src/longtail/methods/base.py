"""What a method is: which views it needs, what it trains, its loss, and what follows a step."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from longtail.models import ImageClassifier


class Method(nn.Module, ABC):
    """One training method, whole: the loop calls `forward` and `after_step` and knows no more.

    A method's state (queue, averages, temperature) lies in parameters and buffers, so that
    `state_dict` is all that a checkpoint needs.

    Attributes:
        name: the name on the command line.
        num_views: views of every image that a step needs.
        expresses: the prior that the logits of `model` express after training: `source`,
            `uniform` or (C,) probabilities.
        wants_teacher: whether its recipe trains a teacher first, as a stage of the run.
        model: what is kept after training.
    """

    name: ClassVar[str]
    num_views: ClassVar[int] = 1
    wants_teacher: ClassVar[bool] = False
    expresses: str | list[float]
    model: ImageClassifier

    @abstractmethod
    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            views: (V, B, 3, H, W) uint8, V = `num_views` views of the batch.
            target: (B,) class index.
            index: (B,) place of each image in its source.

        Returns: "loss", the scalar to minimise, and whatever scalars are worth logging.
        """

    def after_step(self) -> None:
        """What follows the optimiser's step, such as an average of the weights."""

    def set_progress(self, fraction: float) -> None:
        """Called before every epoch with the share of the training that is done, in [0, 1)."""

    def no_weight_decay(self) -> list[nn.Parameter]:
        """Parameters that weight decay leaves alone."""
        return []
