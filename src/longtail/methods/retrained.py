"""A classifier trained first; then its last layer alone is made anew: cRT, LWS, tau-norm."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import CrossEntropyLoss
from longtail.memory import gather_with_grad
from longtail.methods.base import Method, Pairs, classifier_loss
from longtail.models import ImageClassifier, LinearHead
from longtail.prior import ClassPrior


class Retrained(Method):
    """A method with a first stage, of which it keeps the backbone as it is, in eval mode.

    Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
    arXiv 1910.09217.

    Args:
        prior: of the training set.
        first: the classifier of the first stage.
    """

    first_method: ClassVar[str] = "ce"
    expresses = "source"  # by the class mix that it is trained on: see `expressed_after_sampling`

    def __init__(self, prior: ClassPrior, first: ImageClassifier) -> None:
        super().__init__()
        # Beside the first stage, whose weights may be multiplied here, before a run moves anything.
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
        self, views: Tensor, target: Tensor, index: Tensor, pairs: Pairs | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch; see `Method.forward`."""
        with torch.no_grad():
            features = self.model.backbone(views[0])
        logits, target = gather_with_grad(self.logits(features)), gather_with_grad(target)
        return {"loss": classifier_loss(self.loss, logits, target, pairs)}


class CRT(Retrained):
    """cRT: the classifier trained again from the start, classes drawn equally often.

    Kang et al., ICLR 2020, arXiv 1910.09217, section 4.1. The sampling is `--sampling
    class_balanced`, as its recipes have it.
    Departs from the authors' code in: batch norm of the fixed backbone keeps its statistics.

    Args:
        prior: of the training set.
        first: the classifier of the first stage.
    """

    name = "crt"
    use = "two stages: retrain the classifier of a cross-entropy run, classes balanced"


class LWS(Retrained):
    """LWS: one learned factor for each class's logit, classes drawn equally often.

    Learnable weight scaling of Kang et al., ICLR 2020, arXiv 1910.09217, section 4.1.
    Departs from the authors' code in: batch norm of the fixed backbone keeps its statistics.

    Args:
        prior: of the training set.
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
        """Puts the factors into the classifier that is kept."""
        self.head.weight.copy_(self.first_head.weight * self.factor[:, None])
        self.head.bias.copy_(self.first_head.bias * self.factor)


class TauNorm(Retrained):
    """tau-norm: each class's weights over the power tau of their norm; nothing is trained.

    Kang et al., ICLR 2020, arXiv 1910.09217, equation 2; without bias, as in the authors' code.
    Meant for `--epochs 0`, as its recipes have it. The logits express the uniform prior, nearly.

    Args:
        prior: of the training set.
        first: the classifier of the first stage, with a linear head.
        tau: power of the norm, 0 to 1; 1 makes all norms equal.

    Raises: ValueError: when the head of the first stage is not linear, or tau is below 0.
    """

    name = "tau_norm"
    use = "two stages: rescale the classifier of a cross-entropy run, without training"
    expresses = "uniform"

    def __init__(self, prior: ClassPrior, first: ImageClassifier, *, tau: float = 1.0) -> None:
        super().__init__(prior, first)
        if not tau >= 0:
            raise InputError(f"tau of tau_norm must be >= 0, got {tau}")
        weight = linear_head(self.name, first).weight.detach()
        self.head.requires_grad_(False)
        self.head.weight.copy_(weight / weight.norm(dim=1, keepdim=True) ** tau)
        self.head.bias.zero_()


def linear_head(name: str, first: ImageClassifier) -> LinearHead:
    """The head of the first stage, which must be linear for methods that rescale it."""
    if not isinstance(first.head, LinearHead):
        raise InputError(f"first stage of {name} must have a linear head, got {first.head_name}")
    return first.head
