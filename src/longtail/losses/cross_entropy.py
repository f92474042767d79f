"""Cross-entropy: plain, and re-weighted by class."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.losses.base import ClassificationLoss, check_counts, mean_cross_entropy
from longtail.prior import ClassPrior
from longtail.ranges import check_range


def inverse_frequency_weight(class_counts: Tensor | Sequence[float]) -> Tensor:
    """Weight of each class, one over its count, scaled to a mean of 1.

    Args:
        class_counts: (num_classes,), training samples of each class, above 0.

    Returns: (num_classes,), float64.

    Raises: ValueError: when a count is not above 0.

    Examples:
        >>> inverse_frequency_weight(torch.tensor([30, 10]))
        tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    weight = 1 / check_counts(class_counts)
    return weight / weight.mean()


def effective_number_weight(
    class_counts: Tensor | Sequence[float], *, beta: float = 0.9999
) -> Tensor:
    """Weight of each class, one over its effective number of samples, scaled to a mean of 1.

    Equation 2 of Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019,
    arXiv 1901.05555: the effective number of n samples is (1 - beta^n) / (1 - beta).
    Identical to the paper.

    Args:
        class_counts: (num_classes,), training samples of each class, above 0.
        beta: in [0, 1): 0 gives every class the same weight, a value near 1 one over its count.

    Returns: (num_classes,), float64.

    Raises: ValueError: when beta is out of range, or a count is not above 0.

    Examples:
        >>> effective_number_weight(torch.tensor([30, 10]), beta=0.0)
        tensor([1., 1.], dtype=torch.float64)
    """
    check_range("beta of effective_number_weight", beta, least=0, below=1)
    # 1 - beta^n by expm1, since beta^n is within rounding of 1 for a rare class and beta near 1.
    log_beta = torch.tensor(beta, dtype=torch.float64).log()
    effective = -torch.expm1(check_counts(class_counts) * log_beta)
    weight = 1 / effective
    return weight / weight.mean()


class CrossEntropyLoss(ClassificationLoss):
    """Plain cross-entropy.

    Args:
        prior: class prior of the training set; only its number of classes is used.

    Examples:
        >>> loss = CrossEntropyLoss(ClassPrior([9, 1]))
        >>> loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        tensor(0.6931)
    """

    name: ClassVar[str] = "ce"
    use: ClassVar[str] = "baseline to compare with: plain cross-entropy"
    expresses = "source"

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample, (batch,)."""
        return cross_entropy(logits, target, reduction="none")

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,)."""
        return mean_cross_entropy(logits)


class ReweightedLoss(ClassificationLoss):
    """Cross-entropy with each class weighted by one over its count.

    Its minimum is that of plain cross-entropy on balanced data, so the raw logits express the
    uniform prior. The mean is over the sum of weights, as in `torch.nn.CrossEntropyLoss(weight)`.

    Args:
        prior: class prior of the training set.

    Examples:
        >>> loss = ReweightedLoss(ClassPrior([9, 1]))
        >>> loss.class_weight()
        tensor([0.2000, 1.8000], dtype=torch.float64)
    """

    name: ClassVar[str] = "reweighted"
    use: ClassVar[str] = "baseline: classes weighted by one over their count"
    expresses = "uniform"
    weights: Tensor

    def __init__(self, prior: ClassPrior) -> None:
        super().__init__(prior)
        self.register_buffer("weights", inverse_frequency_weight(prior.counts))

    def class_weight(self) -> Tensor:
        """Weight of each class, (num_classes,)."""
        return self.weights

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample before its weight, (batch,)."""
        return cross_entropy(logits, target, reduction="none")

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,)."""
        return mean_cross_entropy(logits)


def expressed_by_weights(prior: ClassPrior, weights: Tensor) -> str | list[float]:
    """The prior that logits express after training on a cross-entropy with class weights.

    Args:
        prior: class prior of the training set.
        weights: (num_classes,), weight of each class.

    Returns: `source` for equal weights, `uniform` for weights of one over the counts, else
        (num_classes,) probabilities.

    Examples:
        >>> expressed_by_weights(ClassPrior([3, 1]), torch.tensor([1.0, 9.0]))
        [0.25, 0.75]
    """
    if torch.allclose(weights, weights.mean()):
        return "source"
    mass = prior.probabilities.to(weights) * weights
    return "uniform" if torch.allclose(mass, mass.mean()) else (mass / mass.sum()).tolist()


class ClassBalancedLoss(ClassificationLoss):
    """Cross-entropy with each class weighted by one over its effective number of samples.

    Cui et al., CVPR 2019, arXiv 1901.05555; see `effective_number_weight`. The raw logits express
    the training prior times these weights, normalised: with beta near 1 and counts well below
    1 / (1 - beta) nearly the uniform prior.

    Args:
        prior: class prior of the training set.
        beta: in [0, 1): 0 weights all classes equally, a value near 1 by one over the count.

    Examples:
        >>> loss = ClassBalancedLoss(ClassPrior([9, 1]), beta=0.5)
        >>> loss.class_weight()
        tensor([0.6675, 1.3325], dtype=torch.float64)
    """

    name: ClassVar[str] = "class_balanced"
    use: ClassVar[str] = "baseline: classes weighted by one over their effective number of samples"
    expresses: str | list[float] = "uniform"
    weights: Tensor

    def __init__(self, prior: ClassPrior, *, beta: float = 0.9999) -> None:
        super().__init__(prior)
        self.register_buffer("weights", effective_number_weight(prior.counts, beta=beta))
        self.expresses = expressed_by_weights(prior, self.weights)

    def class_weight(self) -> Tensor:
        """Weight of each class, (num_classes,)."""
        return self.weights

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample before its weight, (batch,)."""
        return cross_entropy(logits, target, reduction="none")

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,)."""
        return mean_cross_entropy(logits)
