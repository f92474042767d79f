"""BCL: balanced contrastive learning next to a logit-adjusted classifier."""

import torch
from torch import Tensor

from longtail.losses import BalancedContrastiveLoss, LogitAdjustedLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method, MixPartner, classifier_loss
from longtail.models import Backbone, CosineHead, ImageClassifier, Projection
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class BCL(Method):
    """BCL: balanced contrastive learning, with class prototypes, next to a classifier.

    Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022, arXiv
    2207.09052. The first view trains a logit-adjusted cosine classifier, the other two the
    contrast; a class's prototype is the embedding of the classifier's weight. All three views go
    through backbone and projection together, so that the batch norm of the projection also sees
    the classifier's view, as in the authors' code for ImageNet. Their code for CIFAR was never
    published.
    No difference from the authors' code is known.

    Args:
        prior: class prior of the training set.
        backbone: images to features.
        width: width of the embeddings, E.
        hidden: width inside the projections; default: that of their input.
        temperature: above 0, divides.
        classifier_weight: weight of the classifier's loss, lambda.
        contrast_weight: weight of the contrastive loss, mu.
    """

    name = "bcl"
    use = "long training from scratch: balanced contrastive learning, three views"
    num_views = 3
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        width: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
        classifier_weight: float = 2.0,
        contrast_weight: float = 0.6,
    ) -> None:
        super().__init__()
        check_range("classifier_weight of bcl", classifier_weight, least=0)
        check_range("contrast_weight of bcl", contrast_weight, least=0)
        features = backbone.num_features
        self.head = CosineHead(features, prior.num_classes)
        self.model = ImageClassifier(backbone, self.head)
        self.project = Projection(features, hidden, width)
        self.project_prototype = Projection(features, hidden, width)
        self.classify = LogitAdjustedLoss(prior)
        self.contrast = BalancedContrastiveLoss(temperature=temperature)
        self.classifier_weight, self.contrast_weight = classifier_weight, contrast_weight

    def forward(
        self, views: Tensor, target: Tensor, index: Tensor, partner: MixPartner | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        features = self.model.backbone(views.flatten(0, 1))
        logits = self.head(features[: len(target)])
        _, *views_of_contrast = self.project(features).chunk(3)
        embeddings = torch.stack(views_of_contrast, dim=1)
        # The rows of all processes, so that each anchor has the same members as in one process.
        logits, embeddings = gather_with_grad(logits), gather_with_grad(embeddings)
        target = gather_with_grad(target)
        classifier = classifier_loss(self.classify, logits, target, partner)
        contrast = self.contrast(embeddings, self.project_prototype(self.head.weight), target)
        loss = self.classifier_weight * classifier + self.contrast_weight * contrast
        return {"loss": loss, "classifier": classifier.detach(), "contrast": contrast.detach()}
