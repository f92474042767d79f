"""Methods for pixels: their base class, the plain one, and creation by name."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.methods import Method, find_method
from longtail.methods.base import check_scale
from longtail.methods.create import with_loss
from longtail.models import create_dense_head
from longtail.prior import ClassPrior
from longtail.segmentation.methods.pixels import ON_MAPS, pixel_loss
from longtail.segmentation.model import DenseBackbone, Segmenter


class PixelMethod(Method):
    """A training method whose target is a map of classes.

    `forward` takes views (1, B, 3, H, W) uint8, target (B, H, W) with 255 where ignored, and index
    (B,). There is one view only, since a second one would cost a second pass of the network.

    Attributes:
        model: the model that is kept after training.
    """

    task: ClassVar[str] = "segmentation"
    model: Segmenter  # type: ignore[assignment]  # of pixels, not of images

    @property
    def static(self) -> bool:
        """False, since the number of sampled pixels depends on the masks."""
        return False


class PixelClassifier(PixelMethod):
    """Any classification loss over all pixels that are not ignored.

    Args:
        prior: pixels of each class in the training set.
        backbone: the network to train.
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

    @property
    def static(self) -> bool:
        """True if no pixel is selected."""
        return type(self.loss) in ON_MAPS

    def set_progress(self, fraction: float) -> None:
        """Passes the progress to a loss that changes during training."""
        self.loss.set_progress(fraction)


def create_pixel_method(
    name: str,
    settings: Mapping[str, Any],
    prior: ClassPrior,
    image_prior: ClassPrior,
    backbone: DenseBackbone,
    teacher: Segmenter | None = None,
) -> PixelMethod:
    """Makes a method for pixels.

    Args:
        name: see `longtail.methods.find_method`.
        settings: settings of the class; those of a classification loss are under `loss`.
        prior: pixels of each class in the training set.
        image_prior: number of training images with each class, for a method that takes it.
        backbone: the network to train.
        teacher: trained model, for a method that takes a teacher.

    Raises:
        InputError: when the name is unknown, or that of a method for another task.
    """
    found = find_method(name, PixelMethod)  # type: ignore[type-abstract]
    if issubclass(found, ClassificationLoss):
        return PixelClassifier(prior, backbone, **with_loss(found, prior, settings))
    if found.teacher_method:
        settings = {**settings, "teacher": teacher}
    if "image_prior" in inspect.signature(found).parameters:
        settings = {**settings, "image_prior": image_prior}
    make: Any = found
    method: PixelMethod = make(prior, backbone, **settings)
    return method
