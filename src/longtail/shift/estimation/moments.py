"""Class prior from a confusion matrix: BBSE (hard and soft) and RLLS."""

import math

import torch
from torch import Tensor

from longtail.shift.estimation.confusion import Confusion, collect
from longtail.shift.estimation.likelihood import DENSE

# Above this condition number a confusion matrix counts as not invertible.
CONDITION = 1e4
# Weight of RLLS's regulariser and its failure probability, as in the authors' code.
RLLS_ALPHA, RLLS_DELTA = 0.01, 0.05


def moment_prior(
    method: str,
    posteriors: Tensor,
    indices: Tensor | None,
    confusion: Confusion,
    reference: Tensor,
) -> tuple[Tensor, bool]:
    """Class prior of a target by `bbse`, `bbse_soft` or `rlls`.

    Args:
        method: one of the three.
        posteriors: (rows, num_classes), of the target.
        indices: int64, rows of `posteriors` that are the target; None for all.
        confusion: confusion of the source posteriors.
        reference: (num_classes,), the prior that RLLS stays near.
    Returns: (num_classes,), float64; and whether RLLS replaced BBSE because the matrix could not be
        inverted.
    """
    features = posteriors
    if method == "bbse":
        predicted = confusion.features.argmax(dim=1)
        confusion = Confusion(predicted, confusion.labels, confusion.posteriors, confusion.indices)
        features = posteriors.argmax(dim=1)
    samples, num_classes = len(posteriors) if indices is None else len(indices), len(reference)
    every = posteriors.new_full((samples, 1), 1 / samples)
    mean = collect(features, every, num_classes, indices)[:, 0]
    inverted = method != "rlls" and invertible(confusion.matrix)
    if inverted:
        found = bbse_prior(confusion.matrix, mean)
    else:
        radius = rlls_radius(num_classes, len(confusion.labels))
        found = rlls_prior(confusion.matrix, mean, reference.to(posteriors), radius)
    return found.double().cpu(), method != "rlls" and not inverted


def invertible(matrix: Tensor) -> bool:
    """Whether the confusion matrix can be inverted without too much noise in the result.

    A matrix of more than 2,048 classes counts as not invertible, for want of samples.
    """
    if len(matrix) > DENSE:
        return False
    values = torch.linalg.svdvals(matrix.double())
    return bool(values[-1] * CONDITION > values[0])


def bbse_prior(matrix: Tensor, mean: Tensor) -> Tensor:
    """The class prior that would give the target's predictions: matrix^-1 mean, clipped at 0.

    Lipton, Wang and Smola, Detecting and correcting for label shift with black box predictors,
    ICML 2018, arXiv 1802.03916, section 4, for p(prediction | class) in place of the joint
    p(prediction, class): the weights w of the paper are this result over the source prior.
    Identical to the paper; negative weights become 0, as in the authors' code, and the result is
    normalised to sum to 1.

    Args:
        matrix: (num_classes, num_classes), invertible, columns sum to 1.
        mean: (num_classes,), mean feature of the target samples.
    Returns: (num_classes,), sums to 1.
    """
    prior: Tensor = torch.linalg.solve(matrix, mean).clamp(min=0)
    return prior / prior.sum()


def rlls_radius(num_classes: int, samples: int) -> float:
    """Weight of RLLS's regulariser: 0.01 * 3 (2 L / 3 n + sqrt(2 L / n)), L = log(2 C / 0.05)."""
    spread = 2 * math.log(2 * num_classes / RLLS_DELTA) / samples
    return RLLS_ALPHA * 3 * (spread / 3 + math.sqrt(spread))


def rlls_prior(matrix: Tensor, mean: Tensor, reference: Tensor, radius: float) -> Tensor:
    """Regularised learning under label shift: the class prior near `reference` that fits.

    Azizzadenesheli et al., Regularized learning for domain adaptation under label shifts, ICLR
    2019, arXiv 1903.09734, equation 6: with A = matrix * diag(reference), b = mean - A 1 and
    weights 1 + theta, minimises |A theta - b| + radius * |theta| subject to theta >= -1.
    Identical to the paper. The norms are not squared, but the solution is that of |A theta - b|^2 +
    ridge * |theta|^2 for some ridge, which is searched for. The quadratic problem is solved by
    pivoting up to 2,048 classes and by accelerated projected gradient above.

    Args:
        matrix: (num_classes, num_classes), p(feature | class).
        mean: (num_classes,), mean feature of the target samples.
        reference: (num_classes,), the prior to stay near.
        radius: weight of the second norm.
    Returns: (num_classes,), sums to 1.
    """
    scaled = matrix * reference
    residual = scaled.sum(dim=1) - mean
    dense = len(reference) <= DENSE
    theta = torch.zeros_like(reference)
    bound = _largest_eigenvalue(scaled)
    if (scaled.T @ residual).norm() <= radius * residual.norm():
        return reference.clone()  # theta = 0 is the solution
    # The ridge satisfies ridge * |theta| = radius * |fit|, and the ratio of both sides grows with
    # it, so it is found by bisection of its logarithm.
    low, high = math.log(1e-13 * bound), math.log(1e9 * bound)
    for _ in range(50 if dense else 20):
        ridge = math.exp((low + high) / 2)
        theta = (_by_pivoting if dense else _by_gradient)(scaled, residual, ridge, theta)
        if radius * (scaled @ theta + residual).norm() > ridge * theta.norm():
            low = math.log(ridge)
        else:
            high = math.log(ridge)
    prior = reference * (1 + theta)
    return prior / prior.sum()


def _by_pivoting(scaled: Tensor, residual: Tensor, ridge: float, theta: Tensor) -> Tensor:
    """Least |scaled @ theta + residual|^2 + ridge * |theta|^2 for theta >= -1, exactly.

    Block principal pivoting (Kim and Park, SIAM Journal on Scientific Computing 2011): solve for
    the free entries, and exchange those that violate a condition, a few times.
    """
    gram = scaled.T @ scaled
    gram.diagonal().add_(ridge)
    slope = scaled.T @ residual
    bound = theta <= -1
    fewest, patience = len(theta) + 1, 3
    for _ in range(10 * len(theta)):
        free = (~bound).nonzero().flatten()
        theta = torch.where(bound, -1.0, 0.0).to(slope)
        right = -(slope + gram @ theta)[free]
        theta[free] = torch.linalg.solve(gram[free][:, free], right)
        wrong = torch.where(bound, gram @ theta + slope < 0, theta < -1).nonzero().flatten()
        if not len(wrong):
            break
        # All at once while that makes progress, else one at a time, which cannot cycle.
        patience = 3 if len(wrong) < fewest else patience - 1
        fewest = min(fewest, len(wrong))
        wrong = wrong if patience >= 0 else wrong[-1:]
        bound[wrong] = ~bound[wrong]
    return theta.clamp(min=-1)


def _by_gradient(scaled: Tensor, residual: Tensor, ridge: float, theta: Tensor) -> Tensor:
    """Approximates `_by_pivoting` by 50 steps of accelerated projected gradient."""
    bound = _largest_eigenvalue(scaled) + ridge
    ahead, momentum = theta, 1.0
    for _ in range(50):
        slope = scaled.T @ (scaled @ ahead + residual) + ridge * ahead
        after = (ahead - slope / bound).clamp(min=-1)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        # No momentum if it points uphill: the restart of O'Donoghue and Candes.
        uphill = ((ahead - after) * (after - theta)).sum() > 0
        push = torch.where(uphill, 0.0, (momentum - 1) / following)
        ahead, theta, momentum = after + push * (after - theta), after, following
    return theta


def _largest_eigenvalue(matrix: Tensor) -> float:
    """An upper bound of the largest eigenvalue of matrix.T @ matrix."""
    return float(matrix.abs().sum(dim=0).max() * matrix.abs().sum(dim=1).max())
