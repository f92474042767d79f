"""LADE: logit adjustment with a regulariser that ties each logit to its class's likelihood."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.errors import InputError
from longtail.losses.base import ClassificationLoss, check_batch
from longtail.precision import full_precision
from longtail.prior import ClassPrior
from longtail.ranges import check_range
from longtail.targets import check_tensor

# As in the published code, so that its values are reproduced to the last digits.
PRIOR_EPSILON, COUNT_EPSILON = 1e-9, 1e-8


def lade_regularizer(
    logits: Tensor,
    target: Tensor,
    log_prior: Tensor,
    *,
    remine_lambda: float,
    prior_of: Literal["column", "sample"] = "column",
) -> Tensor:
    """LADER: the negative regularised Donsker-Varadhan bound of each class, weighted by the prior.

    Equations 8 to 11 of Hong et al., Disentangling Label Distribution for Long-tailed Visual
    Recognition, CVPR 2021, arXiv 2012.00321: sum over classes c of prior_c times
    -(mean of f_c over the batch's samples of c) + S_c + lambda S_c^2, where
    S_c = log mean over the batch of exp(f_c(x_i) + log(1 / num_classes) - log prior).
    Differences from the paper: by default, as in the published code, the prior in S_c is that of
    class c (the logit's column); in the paper it is that of each sample's label,
    `prior_of="sample"`.
    A class absent from the batch keeps S_c and its square, as in the code, with a first term of 0.
    The 1e-9 on each probability and 1e-8 on each count are also from the code.

    Args:
        logits: (batch, num_classes), unnormalised natural-log scores.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        log_prior: (num_classes,), natural logarithm of the training set's prior.
        remine_lambda: lambda, strength of the square, 0 or more.
        prior_of: "column" or "sample": whose prior is used in S_c.

    Returns: scalar, nats, mean over the classes by their prior.

    Raises: ValueError: when a setting is out of range, or an argument has the wrong type, shape or
        values.

    Examples:
        >>> log_prior = ClassPrior([1, 1]).log_prior
        >>> lade_regularizer(torch.eye(2), torch.tensor([0, 1]), log_prior, remine_lambda=0.1)
        tensor(-0.3414)
    """
    check_tensor("lade_regularizer", "log_prior", log_prior)
    target, counts = check_batch("lade_regularizer", logits, target, len(log_prior))
    _check_settings("lade_regularizer", remine_lambda, prior_of)
    num_classes = logits.shape[1]
    logits = full_precision(logits)
    rows = counts.sum()
    prior = (log_prior.exp() + PRIOR_EPSILON).to(logits)
    log_uniform = math.log(1 / num_classes + PRIOR_EPSILON)

    count = logits.new_zeros(num_classes).index_add(0, target, counts.to(logits))
    own = torch.where(counts, logits.gather(1, target[:, None]).squeeze(1), 0.0)
    mean_own = torch.zeros_like(count).index_add(0, target, own) / (count + COUNT_EPSILON)

    shift = log_uniform - (prior if prior_of == "column" else prior[target, None]).log()
    # Without a row that counts, all are used, so that no gradient is NaN, for a sum of 0.
    left_out = ~counts & (rows > 0)
    terms = (logits + shift).masked_fill(left_out[:, None], -torch.inf)
    spread = torch.logsumexp(terms, dim=0) - rows.clamp(min=1).double().log().to(logits)
    bound = spread + remine_lambda * spread**2 - mean_own
    return torch.where(rows > 0, (log_prior.exp().to(logits) * bound).sum(), 0.0)


class LADELoss(ClassificationLoss):
    """Logit adjustment with LADER, which ties each logit to its class's likelihood.

    Hong et al., CVPR 2021, arXiv 2012.00321: logit-adjusted cross-entropy (tau 1) plus alpha times
    `lade_regularizer`. The raw logits express the uniform prior. The defaults are those for
    CIFAR-100 at imbalance 100; sample weights apply to the cross-entropy only, so that both labels
    of a mixed image count fully in the regulariser.

    Args:
        prior: class prior of the training set.
        alpha: strength of the regulariser, 0 or more.
        remine_lambda: strength of its square, 0 or more.
        prior_of: "column" as in the published code, "sample" as in the paper.

    Raises: ValueError: when a setting is out of range.

    Examples:
        >>> loss = LADELoss(ClassPrior([9, 1]))
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(2.2663)
    """

    name: ClassVar[str] = "lade"
    use: ClassVar[str] = "if the class prior of the test data is known or will change"
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        *,
        alpha: float = 0.1,
        remine_lambda: float = 0.01,
        prior_of: Literal["column", "sample"] = "column",
    ) -> None:
        super().__init__(prior)
        check_range("alpha of LADELoss", alpha, least=0)
        _check_settings("LADELoss", remine_lambda, prior_of)
        self.alpha = alpha
        self.remine_lambda = remine_lambda
        self.prior_of: Literal["column", "sample"] = prior_of

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logit-adjusted cross-entropy of each sample, (batch,)."""
        return cross_entropy(logits + self.log_prior.to(logits), target, reduction="none")

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean nats of the batch plus alpha times the regulariser."""
        regularizer = lade_regularizer(
            logits,
            target,
            self.log_prior,
            remine_lambda=self.remine_lambda,
            prior_of=self.prior_of,
        )
        return super().forward(logits, target, weight) + self.alpha * regularizer


def _check_settings(name: str, remine_lambda: float, prior_of: str) -> None:
    check_range(f"remine_lambda of {name}", remine_lambda, least=0)
    if prior_of not in ("column", "sample"):
        raise InputError(f"prior_of of {name} must be 'column' or 'sample', got {prior_of!r}")
