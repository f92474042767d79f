"""SupCon: contrastive features first, then a classifier on them."""

from torch import Tensor

from longtail.losses import LogitAdjustedLoss, SupervisedContrastiveLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method
from longtail.methods.retrained import CRT
from longtail.models import Backbone, CosineHead, ImageClassifier, Projection
from longtail.prior import ClassPrior


class SupConFeatures(Method):
    """First stage of `supcon`: supervised contrastive features, and a probe of their quality.

    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362. The probe, a
    logit-adjusted cosine classifier, sends no gradient into the network.

    Args:
        prior: class prior of the training set.
        backbone: images to features.
        width: width of the embeddings, E.
        hidden: width inside the projection; default: that of its input.
        temperature: above 0, divides.
    """

    name = "supcon_features"
    use = "first stage of supcon; not meant to be used alone"
    num_views = 2
    mixes = False
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        width: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        features = backbone.num_features
        self.head = CosineHead(features, prior.num_classes)
        self.model = ImageClassifier(backbone, self.head)
        self.project = Projection(features, hidden, width)
        self.probe = LogitAdjustedLoss(prior)
        self.contrast = SupervisedContrastiveLoss(temperature=temperature)

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        features = self.model.backbone(views.flatten(0, 1))
        embeddings = self.project(features).unflatten(0, (2, -1)).transpose(0, 1)
        logits = self.head(features.detach()[: len(target)])
        logits, embeddings, target = map(gather_with_grad, (logits, embeddings, target))
        contrast = self.contrast(embeddings, target)
        probe = self.probe(logits, target)
        return {"loss": contrast + probe, "contrast": contrast.detach(), "probe": probe.detach()}


class SupCon(CRT):
    """SupCon: supervised contrastive features, then a new classifier on them (two stages).

    Khosla et al., NeurIPS 2020, arXiv 2004.11362. The first stage is `supcon_features`.
    Differences from the paper: classes are sampled equally often for the classifier (see `CRT`).
    """

    name = "supcon"
    use = "two stages: supervised contrastive features, then a classifier on them"
    first_method = SupConFeatures.name
