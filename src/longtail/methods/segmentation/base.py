"""What a method for pixels is, and the plain one: any classification loss on every pixel."""

from typing import ClassVar

from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.methods.base import Method, check_scale
from longtail.methods.segmentation.pixels import pixel_loss
from longtail.models import DenseBackbone, Segmenter, create_dense_head
from longtail.prior import ClassPrior


class PixelMethod(Method):
    """A training method whose `target` is a map of classes.

    `forward` takes views (1, B, 3, H, W) uint8, target (B, H, W) with 255 where ignored, and index
    (B,): one view for all, since a second one would cost a second pass through the network.

    Attributes:
        model: what is kept after training.
    """

    task: ClassVar[str] = "segmentation"
    model: Segmenter  # type: ignore[assignment]  # of pixels, not of images


class PixelClassifier(PixelMethod):
    """Any classification loss on every pixel that is not ignored.

    Args:
        prior: pixels of each class in the training set.
        backbone: images to maps of features.
        loss: any classification loss.
        head: `linear` or `cosine` (scale 30).
    """

    def __init__(
        self,
        prior: ClassPrior,
        backbone: DenseBackbone,
        *,
        loss: ClassificationLoss,
        head: str = "linear",
    ) -> None:
        super().__init__()
        self.model = Segmenter(
            backbone, create_dense_head(head, backbone.num_features, prior.num_classes)
        )
        check_scale(loss, self.model.head)
        self.loss = loss
        self.expresses = loss.expresses

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; see `PixelMethod`."""
        logits = self.model.head(self.model.backbone(views[0]))
        return {"loss": pixel_loss(self.loss, logits, target)}

    def set_progress(self, fraction: float) -> None:
        """Lets a loss that changes over the training know how far it is."""
        self.loss.set_progress(fraction)
