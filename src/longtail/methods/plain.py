"""A backbone, a head and any classification loss."""

from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method, Pairs, check_scale, classifier_loss
from longtail.models import Backbone, ImageClassifier, create_head
from longtail.prior import ClassPrior


class PlainClassifier(Method):
    """One view, one head and one classification loss.

    Args:
        prior: of the training set.
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
        self, views: Tensor, target: Tensor, index: Tensor, pairs: Pairs | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`.

        With several processes it is that of the global batch on each of them: the weights of
        samples and the terms of classes are then the same as in one process, whatever the loss.
        """
        logits = gather_with_grad(self.model(views[0]))
        return {"loss": classifier_loss(self.loss, logits, gather_with_grad(target), pairs)}

    def set_progress(self, fraction: float) -> None:
        """Lets a loss that changes over the training know how far it is."""
        self.loss.set_progress(fraction)
