"""Logit-adjusted cross-entropy; Balanced Softmax is the case tau = 1."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.losses.base import ClassificationLoss, check_batch, mean_cross_entropy
from longtail.precision import full_precision
from longtail.prior import ClassPrior
from longtail.ranges import check_range
from longtail.targets import check_tensor, mean_over_rows


def logit_adjusted_loss(
    logits: Tensor, target: Tensor, log_prior: Tensor, *, tau: float = 1.0
) -> Tensor:
    """Cross-entropy of the logits plus tau times the log prior.

    Equation 10 of Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv
    2007.07314; tau = 1 is Balanced Softmax (Ren et al., NeurIPS 2020, arXiv 2007.10740).
    Identical to the paper.

    Args:
        logits: (batch, num_classes), unnormalised natural-log scores.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        log_prior: (num_classes,), natural logarithm of the training set's prior.
        tau: strength of the prior, 0 or more; 0 is plain cross-entropy.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when tau is negative, or an argument has the wrong type, shape or values.

    Examples:
        >>> import torch
        >>> log_prior = ClassPrior([9, 1]).log_prior
        >>> logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([1]), log_prior)
        tensor(2.3026)
    """
    check_range("tau of logit_adjusted_loss", tau, least=0)
    check_tensor("logit_adjusted_loss", "log_prior", log_prior)
    target, counts = check_batch("logit_adjusted_loss", logits, target, len(log_prior))
    nats = _adjusted_nats(full_precision(logits), target, log_prior, tau)
    return mean_over_rows(nats, counts)


class LogitAdjustedLoss(ClassificationLoss):
    """Logit-adjusted cross-entropy; Balanced Softmax is tau = 1.

    See `logit_adjusted_loss`. With tau = 1 the raw logits express the uniform prior, otherwise the
    prior to the power 1 - tau, normalised.

    Args:
        prior: class prior of the training set.
        tau: strength of the prior, 0 or more.

    Raises: ValueError: when tau is negative.

    Examples:
        >>> import torch
        >>> loss = LogitAdjustedLoss(ClassPrior([9, 1]))
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(2.3026)
    """

    name: ClassVar[str] = "logit_adjust"
    use: ClassVar[str] = "start here: the cost of cross-entropy, and nothing to tune"
    expresses: str | list[float] = "uniform"

    def __init__(self, prior: ClassPrior, *, tau: float = 1.0) -> None:
        super().__init__(prior)
        check_range("tau of LogitAdjustedLoss", tau, least=0)
        self.tau = tau
        if tau != 1:
            mass = prior.probabilities ** (1 - tau)
            self.expresses = "source" if tau == 0 else (mass / mass.sum()).tolist()

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample, (batch,)."""
        return _adjusted_nats(logits, target, self.log_prior, self.tau)

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,)."""
        return mean_cross_entropy(logits + self.tau * self.log_prior.to(logits))


def _adjusted_nats(logits: Tensor, target: Tensor, log_prior: Tensor, tau: float) -> Tensor:
    return cross_entropy(logits + tau * log_prior.to(logits), target, reduction="none")
