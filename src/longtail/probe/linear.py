"""A linear head on fixed features, fitted to the whole training set by L-BFGS."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from longtail.arrays import as_tensor
from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.prior import ClassPrior

# A dense tensor (samples, num_features), or a scipy sparse matrix of that shape in CSR format.
Features = Any
InversePenalty = float | Literal["auto"]

WIDE = 256  # features or more are taken for those of a network, fewer for the columns of a table


@dataclass(frozen=True)
class Linear:
    """Logits = x weight^T + bias.

    Attributes:
        weight: (num_classes, num_features).
        bias: (num_classes,).
    """

    weight: Tensor
    bias: Tensor

    def logits(self, x: Features) -> Tensor:
        """Logits (samples, num_classes) of features (samples, num_features)."""
        return product(x, self.weight) + self.bias


def torch_dtype(x: Any) -> torch.dtype:
    """The type to compute in: float32 for float32 features, float64 otherwise."""
    if isinstance(x, Tensor):
        return x.dtype
    return torch.float32 if x.dtype == np.float32 else torch.float64


def as_torch(x: Any) -> Features:
    """A dense array as a tensor without a copy; a sparse matrix unchanged."""
    return as_tensor(x, "X") if isinstance(x, np.ndarray) else x


def product(x: Features, weight: Tensor) -> Tensor:
    """Product of features and weight^T, (samples, num_classes), for dense or sparse features."""
    if isinstance(x, Tensor):
        return torch.mm(x, weight.T)
    return torch.from_numpy(np.asarray(x @ weight.numpy().T))


def moments(x: Features, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance of each feature.

    Raises: ValueError: when a variance is not finite, since no head could be fitted.
    """
    share = weight / weight.sum()
    if isinstance(x, Tensor):
        mean = share @ x
        variance = share @ (x - mean).square()
    else:
        exact, shares = x.astype(np.float64), share.double().numpy()  # a difference loses digits
        mean = torch.from_numpy(np.asarray(exact.T @ shares))
        square = torch.from_numpy(np.asarray(exact.multiply(exact).T @ shares))
        variance = (square - mean.square()).clamp(min=0).to(share)  # below 0 by rounding
        largest = torch.from_numpy(x.multiply(x).max(axis=0).toarray().reshape(-1))
        variance[largest.isinf()] = torch.inf  # as for dense features
        mean = mean.to(share)
    wrong = (~variance.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"X must have a variance that {variance.dtype} can represent in every column, got "
            f"{variance[wrong[0]].item()} in column {wrong[0]}: replace fill values "
            "of missing entries, such as 1e20, or pass float64"
        )
    return mean, variance


def centre(x: Features, mean: Tensor) -> Tensor:
    """What is subtracted from each feature: its mean; 0 for sparse features, which stay sparse."""
    return mean if isinstance(x, Tensor) else torch.zeros_like(mean)


def chosen_penalty(inverse_penalty: InversePenalty, num_features: int) -> float:
    """C; `auto` is 5 for 256 features or more, as of a network, and 20 for fewer, as of a table.

    Both were chosen by cross-validation of training splits, see docs/sklearn.md.

    Examples:
        >>> chosen_penalty("auto", 1280), chosen_penalty("auto", 30), chosen_penalty(1.0, 30)
        (5.0, 20.0, 1.0)
    """
    if inverse_penalty == "auto":
        return 5.0 if num_features >= WIDE else 20.0
    return inverse_penalty


def penalty_strength(
    variance: Tensor, scale: Tensor | None, inverse_penalty: float, samples: float
) -> Tensor:
    """The factor of half the squared weights in the objective, in addition to the mean loss.

    It penalises the weights of features that were divided by `scale`, and then all by one factor
    that makes their total variance 1, so that one value of C suits any backbone.

    Args:
        variance: (num_features,), variance of the original features.
        scale: (num_features,), divisor of each feature; None: 1.
        inverse_penalty: C.
        samples: sum of the sample weights.

    Returns: (num_features,).
    """
    square = torch.ones_like(variance) if scale is None else scale.square()
    total = (variance / square).sum()
    return square * torch.where(total > 0, total, 1.0) / (inverse_penalty * samples)


def fit_linear(
    x: Features,
    target: Tensor,
    weight: Tensor,
    loss: ClassificationLoss,
    prior: ClassPrior,
    *,
    inverse_penalty: float,
    max_iter: int,
    tol: float,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    start: Linear | None = None,
) -> tuple[Linear, int]:
    """Minimises the mean loss plus the penalty over the whole training set by L-BFGS.

    The weights are preconditioned: those of each class are divided by the root of the curvature due
    to its share of the data. Without this, the rare classes, whose gradients are small, would
    hardly have moved by the time the frequent classes have converged.

    Args:
        x: (samples, num_features).
        target: (samples,), class index.
        weight: (samples,), above 0.
        loss: any classification loss.
        prior: the class prior of the training set, with sample weights counted.
        inverse_penalty: C, see `penalty_strength`.
        max_iter: maximum number of iterations.
        tol: stops when no entry of the preconditioned gradient exceeds it.
        scale: (num_features,), divisor of each feature in the penalty, see `penalty_strength`.
        offset: (samples, num_classes), constants added to the logits.
        start: initial weights; default: zeros.

    Returns: the head, for the original features, and the number of iterations.
    """
    average, variance = moments(x, weight)
    strength = penalty_strength(variance, scale, inverse_penalty, float(weight.sum()))
    mean = centre(x, average)
    square = variance + (average - mean).square()
    if isinstance(x, Tensor):
        x = x - mean
    share = prior.probabilities
    by_class = loss.class_weight()
    if by_class is not None:
        share = share * by_class / (share @ by_class)
    share = share.to(variance)
    curvature = share[:, None] * square + strength
    weight_scale = torch.where(curvature > 0, curvature, 1.0).rsqrt()  # 0: a constant feature
    bias_scale = share.rsqrt()

    even = bool((weight == weight[0]).all())

    def unpack(flat: NDArray[np.float64]) -> Linear:
        values = torch.from_numpy(flat).to(weight_scale)
        scaled, bias = values[: weight_scale.numel()], values[weight_scale.numel() :]
        return Linear(scaled.view_as(weight_scale) * weight_scale, bias * bias_scale)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        head = unpack(flat)
        logits = head.logits(x)
        if offset is not None:
            logits += offset
        nats = loss(logits.requires_grad_(), target, None if even else weight)
        (slope,) = torch.autograd.grad(nats, logits)
        by_weight = (product(x.T, slope.T).T + strength * head.weight) * weight_scale
        gradient = torch.cat([by_weight.flatten(), slope.sum(0) * bias_scale])
        penalty = (strength / 2 * head.weight.square()).sum()
        return float(nats.detach() + penalty), gradient.double().numpy()

    begin = torch.zeros(weight_scale.numel() + len(bias_scale))
    if start is not None:
        start_weight = start.weight.to(mean)  # it may be of another fit, with another float type
        bias = (start.bias.to(mean) + start_weight @ mean) / bias_scale
        begin = torch.cat([(start_weight / weight_scale).flatten(), bias])
    # torch.optim would import the compiler, which takes longer than the fit.
    found = minimize(
        objective,
        begin.double().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "gtol": tol, "ftol": 0.0, "maxcor": 10},
    )
    head = unpack(found.x)
    return Linear(head.weight, head.bias - head.weight @ mean), int(found.nit)
