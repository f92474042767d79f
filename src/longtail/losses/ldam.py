"""LDAM: a margin for each class, wider for a rare one, with deferred re-weighting."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.losses.base import ClassificationLoss, check_batch, check_counts
from longtail.losses.cross_entropy import effective_number_weight, expressed_by_weights
from longtail.precision import full_precision
from longtail.prior import ClassPrior
from longtail.ranges import check_range
from longtail.targets import mean_over_rows


def ldam_loss(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
) -> Tensor:
    """Cross-entropy with the target's logit reduced by the margin of its class.

    Equation 12 of Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin
    Loss, NeurIPS 2019, arXiv 1906.07413: margins are proportional to count^(-1/4).
    Differences from the published code: this function takes the classifier's logits, scale times
    cosine, and scales the margin, where the code takes cosines and scales both; the value is the
    same, and the logits remain natural-log scores.

    Args:
        logits: (batch, num_classes), `scale` times cosine.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        class_counts: (num_classes,), training samples of each class, above 0.
        max_margin: margin of the rarest class, as a cosine, 0 or more.
        scale: factor that the classifier puts on its cosines.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when the margin is negative, or an argument has the wrong type, shape or
        values.

    Examples:
        >>> import torch
        >>> counts = torch.tensor([16, 1])
        >>> ldam_loss(torch.tensor([[0.0, 15.0]]), torch.tensor([1]), counts)  # nothing left: log 2
        tensor(0.6931)
    """
    class_counts = check_counts(class_counts)
    target, counts = check_batch("ldam_loss", logits, target, len(class_counts))
    margin = _margins(class_counts, max_margin, scale)
    return mean_over_rows(_margin_nats(full_precision(logits), target, margin), counts)


class LDAMLoss(ClassificationLoss):
    """Label-distribution-aware margins, with deferred re-weighting.

    See `ldam_loss`. From the fraction `deferred` of training on, classes are weighted by one over
    their effective number of samples (LDAM-DRW), so that in the end the raw logits express the
    training prior times these weights approximately. `set_progress` sets the current fraction; if
    it never reaches `deferred`, as where it is told before each of few epochs, the logits express
    the training prior. The classifier is a cosine classifier with the same `scale`.

    Args:
        prior: class prior of the training set.
        max_margin: margin of the rarest class, as a cosine, 0 or more.
        scale: factor that the classifier puts on its cosines.
        deferred: fraction of training after which classes are weighted; 1: never.
        beta: beta of the effective number, in [0, 1).

    Raises: ValueError: when a setting is out of range.

    Examples:
        >>> import torch
        >>> loss = LDAMLoss(ClassPrior([16, 1]))
        >>> loss(torch.tensor([[0.0, 15.0]]), torch.tensor([1]))
        tensor(0.6931)
        >>> loss.set_progress(0.9)
        >>> loss.class_weight()
        tensor([0.1177, 1.8823], dtype=torch.float64)
    """

    name: ClassVar[str] = "ldam"
    use: ClassVar[str] = (
        "baseline of the CIFAR-LT papers: margins, and class weights late in training"
    )
    expresses: str | list[float] = "uniform"
    head: ClassVar[str] = "cosine"
    margin: Tensor
    weights: Tensor

    def __init__(
        self,
        prior: ClassPrior,
        *,
        max_margin: float = 0.5,
        scale: float = 30.0,
        deferred: float = 0.8,
        beta: float = 0.9999,
    ) -> None:
        super().__init__(prior)
        check_range("deferred of LDAMLoss", deferred, least=0, most=1)
        self.register_buffer("margin", _margins(prior.counts, max_margin, scale))
        self.register_buffer("weights", effective_number_weight(prior.counts, beta=beta))
        self.scale, self.deferred = scale, deferred
        self.weighting = deferred == 0
        weighted = expressed_by_weights(prior, self.weights)
        self.expresses = weighted if deferred < 1 else "source"

    def set_progress(self, fraction: float) -> None:
        """Weights the classes from the fraction `deferred` of training on.

        Raises: ValueError: when the fraction is not in [0, 1].
        """
        check_range("fraction of LDAMLoss.set_progress", fraction, least=0, most=1)
        self.weighting = fraction >= self.deferred and self.deferred < 1

    def class_weight(self) -> Tensor | None:
        """Weight of each class, (num_classes,), from the fraction `deferred` on."""
        return self.weights if self.weighting else None

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample before its weight, (batch,)."""
        return _margin_nats(logits, target, self.margin)


def _margins(class_counts: Tensor, max_margin: float, scale: float) -> Tensor:
    """Margin of each class in the units of the logits, (num_classes,), float64."""
    check_range("max_margin of LDAMLoss", max_margin, least=0)
    check_range("scale of LDAMLoss", scale, above=0)
    margin = class_counts.double() ** -0.25
    return scale * max_margin * margin / margin.max()


def _margin_nats(logits: Tensor, target: Tensor, margin: Tensor) -> Tensor:
    """Nats of each sample, the target's logit reduced by its class's margin."""
    own = -margin.to(logits)[target]
    return cross_entropy(
        logits.scatter_add(1, target[:, None], own[:, None]), target, reduction="none"
    )
