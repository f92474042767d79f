"""A backbone, a head and any classification loss."""

from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method, MixPartner, check_scale, classifier_loss
from longtail.models import Backbone, ImageClassifier, create_head
from longtail.prior import ClassPrior


class PlainClassifier(Method):
    """One view, one head and one classification loss.

    Args:
        prior: class prior of the training set.
        backbone: images to features.
        loss: any classification loss.
        head: `linear`, `linear_default` (PyTorch's own initialisation) or `cosine` (scale 30).
    """

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        loss: ClassificationLoss,
        head: str = "linear",
    ) -> None:
        super().__init__()
        self.model = ImageClassifier(
            backbone, create_head(head, backbone.num_features, prior.num_classes)
        )
        check_scale(loss, self.model.head)
        self.loss = loss
        self.expresses = loss.expresses

    def forward(
        self, views: Tensor, target: Tensor, index: Tensor, partner: MixPartner | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`.

        With several processes, each computes the loss of the global batch: weights of samples and
        terms of classes are then the same as in one process, for every loss.
        """
        logits = gather_with_grad(self.model(views[0]))
        return {"loss": classifier_loss(self.loss, logits, gather_with_grad(target), partner)}

    def set_progress(self, fraction: float) -> None:
        """Passes the progress to a loss that changes during training."""
        self.loss.set_progress(fraction)
