"""BCL of pixels: logit-adjusted classifier of all, balanced contrast of sampled ones."""

from torch import Tensor

from longtail.errors import InputError
from longtail.losses import LogitAdjustedLoss, balanced_contrastive_loss
from longtail.methods.segmentation.base import PixelMethod
from longtail.methods.segmentation.pixels import pixel_loss, sample_pixels, shrink
from longtail.models import (
    DenseBackbone,
    DenseCosineHead,
    Projection,
    Segmenter,
)
from longtail.prior import ClassPrior


class PixelBCL(PixelMethod):
    """BCL of pixels: contrast of sampled pixels with each other and with class prototypes.

    Zhu et al., CVPR 2022, arXiv 2207.09052. Departs from the paper in: an anchor is a sampled
    pixel, a fixed number a class and image, in one view; other pixels of its class take the place
    of its second view. As there, a prototype is the embedding of the classifier's weight.

    Args:
        prior: pixels of each class in the training set.
        backbone: images to maps of features.
        samples: pixels of a class and image.
        width: of the embeddings, E.
        hidden: width inside the projection; that of its input when not given.
        temperature: above 0, divides.
        classifier_weight: lambda.
        contrast_weight: mu.
    """

    name = "bcl"
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: DenseBackbone,
        *,
        samples: int = 4,
        width: int = 32,
        hidden: int | None = None,
        temperature: float = 0.1,
        classifier_weight: float = 1.0,
        contrast_weight: float = 0.35,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise InputError(f"samples of bcl must be >= 1, got {samples}")
        features = backbone.num_features
        self.head = DenseCosineHead(features, prior.num_classes)
        self.model = Segmenter(backbone, self.head)
        self.project = Projection(features, hidden, width)
        self.classifier_loss = LogitAdjustedLoss(prior)
        self.samples, self.temperature = samples, temperature
        self.classifier_weight, self.contrast_weight = classifier_weight, contrast_weight

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; see `PixelMethod`."""
        (images,) = views
        features = self.model.backbone(images)
        classifier = pixel_loss(self.classifier_loss, self.head(features), target)
        loss = self.classifier_weight * classifier
        small = shrink(target, features.shape[-2:])
        chosen = sample_pixels(small, len(self.head.weight), self.samples)
        if len(chosen) > 1:  # a batch norm needs two
            embeddings = self.project(chosen.of(features))[:, None]  # one view of each
            contrast = balanced_contrastive_loss(
                embeddings,
                self.project(self.head.weight),
                chosen.labels,
                temperature=self.temperature,
            )
            loss = loss + self.contrast_weight * contrast
        return {"loss": loss}
