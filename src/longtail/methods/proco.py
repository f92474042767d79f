"""ProCo: contrast with each class's distribution, next to a logit-adjusted classifier."""

import torch
from torch import Tensor

from longtail.losses import LogitAdjustedLoss, ProCoLoss
from longtail.memory import gather_keys, gather_with_grad
from longtail.methods.base import Method, MixPartner, classifier_loss
from longtail.models import Backbone, ImageClassifier, Projection, create_head
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class ProCo(Method):
    """ProCo: contrast with a von Mises-Fisher distribution per class instead of a queue.

    Du et al., Probabilistic Contrastive Learning for Long-Tailed Visual Recognition, TPAMI 2024,
    arXiv 2403.06726. The first view trains a logit-adjusted classifier. Of the other two, the
    first updates the estimates of the distributions and is scored with them, then the second. All
    three views go through backbone and projection together, so that the batch norm of the
    projection also sees the classifier's view. Differences from the authors' code: classes without
    features, see `longtail.losses.ProCoLoss`.

    Args:
        prior: class prior of the training set.
        backbone: images to features.
        width: width of the embeddings, E.
        hidden: width inside the projection; default: that of its input.
        temperature: above 0, divides.
        contrast_weight: weight of the contrastive loss, alpha.
        head: `cosine` (scale 30), or `linear_default` as in the authors' code for CIFAR.
    """

    name = "proco"
    use = "long training from scratch: contrast with class distributions, three views, no queue"
    num_views = 3
    expresses = "uniform"
    progress: Tensor

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        width: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
        contrast_weight: float = 1.0,
        head: str = "cosine",
    ) -> None:
        super().__init__()
        check_range("contrast_weight of proco", contrast_weight, least=0)
        features = backbone.num_features
        self.head = create_head(head, features, prior.num_classes)
        self.model = ImageClassifier(backbone, self.head)
        self.project = Projection(features, hidden, width)
        self.classify = LogitAdjustedLoss(prior)
        self.contrast = ProCoLoss(prior, width=width, temperature=temperature)
        self.contrast_weight = contrast_weight
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(
        self, views: Tensor, target: Tensor, index: Tensor, partner: MixPartner | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        features = self.model.backbone(views.flatten(0, 1))
        logits = gather_with_grad(self.head(features[: len(target)]))
        classifier = classifier_loss(self.classify, logits, gather_with_grad(target), partner)
        _, *views_of_contrast = self.project(features).chunk(3)
        contrast = torch.stack([self._contrast(view, target) for view in views_of_contrast]).mean()
        loss = classifier + self.contrast_weight * contrast
        return {"loss": loss, "classifier": classifier.detach(), "contrast": contrast.detach()}

    def _contrast(self, embeddings: Tensor, target: Tensor) -> Tensor:
        """Loss of one view, after an update of the estimates with it on all processes."""
        self.contrast.update(*gather_keys(embeddings.detach(), target))
        loss: Tensor = self.contrast(embeddings, target)
        return loss

    def set_progress(self, fraction: float) -> None:
        """Uses the estimates of the epoch that ended."""
        self.contrast.next_epoch(self.progress < fraction)  # not if a run resumes within an epoch
        self.progress.fill_(fraction)
