"""BCL for pixels: logit-adjusted classifier of all, balanced contrast of sampled ones."""

from torch import Tensor

from longtail.losses import LogitAdjustedLoss, balanced_contrastive_loss
from longtail.memory import gather_keys, gather_with_grad, this_process
from longtail.models import DenseCosineHead, Projection
from longtail.prior import ClassPrior
from longtail.ranges import MAX_COUNT, check_range
from longtail.segmentation.methods.base import PixelMethod
from longtail.segmentation.methods.pixels import pixel_loss, sample_pixels, shrink, unused
from longtail.segmentation.model import DenseBackbone, Segmenter


class PixelBCL(PixelMethod):
    """BCL for pixels: contrast of sampled pixels with each other and with class prototypes.

    Zhu et al., CVPR 2022, arXiv 2207.09052. Differences from the paper: an anchor is a sampled
    pixel, a fixed number per class and image, in one view; other pixels of its class replace its
    second view. As in the paper, a prototype is the embedding of the classifier's weight.

    Args:
        prior: pixels of each class in the training set.
        backbone: the network to train.
        samples: sampled pixels per class and image.
        width: width of the embeddings, E.
        hidden: width inside the projection; default: that of its input.
        temperature: above 0, divides.
        classifier_weight: weight of the classifier's loss, lambda.
        contrast_weight: weight of the contrastive loss, mu.
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
        check_range("samples of bcl", samples, least=1, most=MAX_COUNT)
        check_range("classifier_weight of bcl", classifier_weight, least=0)
        check_range("contrast_weight of bcl", contrast_weight, least=0)
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
        # From all processes, so that each anchor has the same members as in one process.
        (labels,) = gather_keys(chosen.labels, ragged=True)
        if len(labels) > 1:  # a batch norm needs two
            embeddings = gather_with_grad(self.project(chosen.of(features)), ragged=True)
            contrast = balanced_contrastive_loss(
                embeddings[:, None],  # one view of each
                self.project(self.head.weight),
                labels,
                temperature=self.temperature,
            )
            loss = loss + self.contrast_weight * contrast
        elif this_process()[1] > 1:
            loss = loss + unused(self.project)
        return {"loss": loss}
