"""Two-stage methods that replace the last layer of a trained classifier: cRT, LWS, tau-norm."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import CrossEntropyLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method, MixPartner, classifier_loss
from longtail.models import ImageClassifier, LinearHead
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class Retrained(Method):
    """A method with a first stage, whose backbone it keeps unchanged, in eval mode.

    Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
    arXiv 1910.09217.

    Args:
        prior: class prior of the training set.
        first: the classifier of the first stage.
    """

    first_method: ClassVar[str] = "ce"
    expresses = "source"  # for the sampled classes, see `expressed_after_sampling`

    def __init__(self, prior: ClassPrior, first: ImageClassifier) -> None:
        super().__init__()
        # On the device of the first stage, whose weights are read before a run moves anything.
        device = next(first.parameters()).device
        self.head = LinearHead(first.backbone.num_features, prior.num_classes).to(device)
        first.backbone.frozen = True
        self.model = ImageClassifier(first.backbone.eval().requires_grad_(False), self.head)
        self.loss = CrossEntropyLoss(prior)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) in training, of features (B, D)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(
        self, views: Tensor, target: Tensor, index: Tensor, partner: MixPartner | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        with torch.no_grad():
            features = self.model.backbone(views[0])
        logits, target = gather_with_grad(self.logits(features)), gather_with_grad(target)
        return {"loss": classifier_loss(self.loss, logits, target, partner)}


class CRT(Retrained):
    """cRT: the classifier is retrained from scratch, with classes sampled equally often.

    Kang et al., ICLR 2020, arXiv 1910.09217, section 4.1. The sampling is `--sampling
    class_balanced`, as in its recipes.
    Differences from the authors' code: batch norm of the fixed backbone keeps its statistics.

    Args:
        prior: class prior of the training set.
        first: the classifier of the first stage.
    """

    name = "crt"
    use = "two stages: retrain the classifier of a cross-entropy run, classes balanced"


class LWS(Retrained):
    """LWS: a learned factor per class logit, with classes sampled equally often.

    Learnable weight scaling of Kang et al., ICLR 2020, arXiv 1910.09217, section 4.1.
    Differences from the authors' code: batch norm of the fixed backbone keeps its statistics.

    Args:
        prior: class prior of the training set.
        first: the classifier of the first stage, with a linear head.

    Raises: ValueError: when the head of the first stage is not linear.
    """

    name = "lws"
    use = "two stages: retrain one scale per class of a cross-entropy run"

    def __init__(self, prior: ClassPrior, first: ImageClassifier) -> None:
        super().__init__(prior, first)
        self.first_head = linear_head(self.name, first).requires_grad_(False)
        self.head.requires_grad_(False)
        self.factor = nn.Parameter(torch.ones_like(self.head.bias))
        self.after_step()

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) in training, of features (B, D)."""
        logits: Tensor = self.factor * self.first_head(features)
        return logits

    @torch.no_grad()
    def after_step(self) -> None:
        """Applies the factors to the classifier that is kept."""
        self.head.weight.copy_(self.first_head.weight * self.factor[:, None])
        self.head.bias.copy_(self.first_head.bias * self.factor)


class TauNorm(Retrained):
    """tau-norm: each class's weights divided by their norm to the power tau; nothing is trained.

    Kang et al., ICLR 2020, arXiv 1910.09217, equation 2; without bias, as in the authors' code.
    Meant for `--epochs 0`, as in its recipes. The logits express the uniform prior approximately.

    Args:
        prior: class prior of the training set.
        first: the classifier of the first stage, with a linear head.
        tau: power of the norm, 0 to 1; 1 makes all norms equal.

    Raises: ValueError: when the head of the first stage is not linear, or tau is below 0.
    """

    name = "tau_norm"
    use = "two stages: rescale the classifier of a cross-entropy run, without training"
    expresses = "uniform"

    def __init__(self, prior: ClassPrior, first: ImageClassifier, *, tau: float = 1.0) -> None:
        super().__init__(prior, first)
        check_range("tau of tau_norm", tau, least=0)
        weight = linear_head(self.name, first).weight.detach()
        self.head.requires_grad_(False)
        self.head.weight.copy_(weight / weight.norm(dim=1, keepdim=True) ** tau)
        self.head.bias.zero_()


def linear_head(name: str, first: ImageClassifier) -> LinearHead:
    """The head of the first stage, which must be linear to be rescaled."""
    if not isinstance(first.head, LinearHead):
        raise InputError(
            f"first stage of {name} must have a linear head, got {type(first.head).__name__}"
        )
    return first.head
