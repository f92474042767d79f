"""A backbone, a head and any classification loss."""

from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.methods.base import Method
from longtail.models import Backbone, ImageClassifier, create_head
from longtail.prior import ClassPrior


class PlainClassifier(Method):
    """One view, one head and one classification loss.

    Args:
        prior: of the training set.
        backbone: images to features.
        loss: any classification loss.
        head: `linear` or `cosine` (scale 30).
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
        self.loss = loss
        self.expresses = loss.expresses

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        return {"loss": self.loss(self.model(views[0]), target)}

    def set_progress(self, fraction: float) -> None:
        """Lets a loss that changes over the training know how far it is."""
        self.loss.set_progress(fraction)
