"""One function that fits a head by any method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longtail.losses import LogitAdjustedLoss
from longtail.prior import ClassPrior, check_prior
from longtail.probe.contrast import ContrastNetwork, train_contrast
from longtail.probe.linear import (
    Features,
    InversePenalty,
    Linear,
    chosen_penalty,
    fit_linear,
    torch_dtype,
)
from longtail.probe.methods import check_method, create_loss
from longtail.probe.mixture import Mixture, MixtureHead
from longtail.probe.scaling import Standardize, column_scale
from longtail.shift import expressed_prior, resolve_prior

Head = Linear | MixtureHead | ContrastNetwork


@dataclass(frozen=True)
class FittedHead:
    """A head and how it was fitted.

    Attributes:
        head: maps the original (not standardised) features to logits; a `Linear` (`weight`, `bias`)
            for every method except `gml` and `bcl`.
        expressed_prior: (num_classes,), float64, the class prior that the logits express.
        scale: (num_features,), standard deviation of each column if the columns were
            standardised, else None.
        iterations: iterations of L-BFGS; epochs of `bcl`.
        converged: whether L-BFGS reached `tol` within `max_iter` iterations.
    """

    head: Head
    expressed_prior: Tensor
    scale: Tensor | None
    iterations: int
    converged: bool

    def logits(self, x: Features) -> Tensor:
        """Logits (samples, num_classes) of features (samples, num_features)."""
        with torch.no_grad():
            return self.head.logits(x)


def fit_head(
    x: Features,
    target: Tensor,
    prior: ClassPrior,
    method: str = "logit_adjust",
    *,
    settings: Mapping[str, Any] | None = None,
    weight: Tensor | None = None,
    inverse_penalty: InversePenalty = "auto",
    standardize: Standardize = "auto",
    max_iter: int = 100,
    tol: float = 0.005,
    seed: int = 0,
    start: Linear | None = None,
) -> FittedHead:
    """Fits a head on fixed features.

    Args:
        x: (samples, num_features), float32 or float64, a tensor or (linear methods only) a scipy
            CSR matrix.
        target: (samples,), class index.
        prior: the class prior of the training set, with sample weights counted.
        method: see `check_method`.
        settings: see `check_method`; default: none.
        weight: (samples,), above 0, in the type of `x`; default: 1.
        inverse_penalty: C, inverse strength of the L2 penalty, see `penalty_strength`; `auto`: see
            `chosen_penalty`.
        standardize: whether columns are divided by their standard deviations, see `column_scale`.
        max_iter: maximum number of iterations of L-BFGS.
        tol: L-BFGS stops when no entry of the preconditioned gradient exceeds it.
        seed: seeds the stored samples of `gml` and everything random in `bcl`.
        start: initial weights of the linear head; default: zeros.

    Raises:
        ValueError: if the method or one of its settings is invalid.

    Examples:
        >>> x = torch.tensor([[0.0], [0.2], [0.1], [1.0]])
        >>> target = torch.tensor([0, 0, 0, 1])
        >>> fitted = fit_head(x, target, ClassPrior([3, 1]))
        >>> fitted.logits(torch.tensor([[0.1], [0.9]])).argmax(1).tolist()
        [0, 1]
    """
    check_prior("prior of fit_head", prior)
    given = dict(settings or {})
    check_method(method, given)
    weight = torch.ones(len(target), dtype=torch_dtype(x)) if weight is None else weight
    scale = column_scale(x, weight, standardize)
    mixture = offset = None
    if method == "bcl":
        network = train_contrast(x, target, weight, prior, seed, scale, **given)
        uniform = resolve_prior("uniform", prior, prior.num_classes)
        return FittedHead(network, uniform, scale, network.epochs, True)
    if method == "gml":
        mixture = Mixture(x, target, prior, seed, scale, **given)
        offset = mixture.scores_without_own(x)
    loss = LogitAdjustedLoss(prior) if mixture else create_loss(method, prior, given)
    linear, iterations = fit_linear(
        x,
        target,
        weight,
        loss,
        prior,
        inverse_penalty=chosen_penalty(inverse_penalty, x.shape[1]),
        max_iter=max_iter,
        tol=tol,
        scale=scale,
        offset=offset,
        start=start,
    )
    head = MixtureHead(mixture, linear) if mixture else linear
    expressed = expressed_prior(loss.expresses, prior)
    return FittedHead(head, expressed, scale, iterations, iterations < max_iter)
