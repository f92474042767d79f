"""Class mix from a confusion matrix: BBSE (hard and soft) and RLLS."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longtail.shift.estimation.likelihood import DENSE
from longtail.shift.estimation.posterior import blocks

# Above this condition number a confusion matrix counts as not invertible.
CONDITION = 1e4
# Weight of RLLS's regulariser and its failure probability, as in the authors' code.
RLLS_ALPHA, RLLS_DELTA = 0.01, 0.05
# Random directions from which the effect of a scattered mix is estimated.
PROBES = 20


def collect(
    features: Tensor, weights: Tensor, num_classes: int, places: Tensor | None = None
) -> Tensor:
    """features.T @ weights, where `features` may be class indices that stand for one-hot rows.

    Args:
        features: (samples, num_classes), or int64 (samples,).
        weights: (samples, columns).
        num_classes: number of classes.
        places: int64, rows of `features` that are the samples, in place of all; two-dimensional
            features are not copied for it.
    Returns: (num_classes, columns).
    """
    total = weights.new_zeros(num_classes, weights.shape[1])
    if features.ndim == 1:
        return total.index_add_(0, features if places is None else features[places], weights)
    if places is None:
        return features.T @ weights
    for rows in blocks(len(places), num_classes):
        total += features[places[rows]].T @ weights[rows]
    return total


@dataclass(frozen=True)
class Confusion:
    """Mean features of the source samples of each class, p(prediction | class).

    A class without a sample takes what the model expects: the mean feature of all samples, each
    weighted by its posterior of the class.

    Attributes:
        features: of the source samples, (samples, num_classes) posteriors or (samples,) predicted
            classes.
        labels: (samples,), int64.
        posteriors: (samples, num_classes).
        places: int64, rows of `features` and `posteriors` that are the samples, in place of all.
    """

    features: Tensor
    labels: Tensor
    posteriors: Tensor
    places: Tensor | None = None

    @cached_property
    def counts(self) -> Tensor:
        """Source samples of each class, (num_classes,)."""
        num_classes = self.posteriors.shape[1]
        return torch.bincount(self.labels, minlength=num_classes).to(self.posteriors)

    @cached_property
    def matrix(self) -> Tensor:
        """(num_classes, num_classes), column c is the mean feature of class c."""
        num_classes, counts = self.posteriors.shape[1], self.counts
        features = self.features if self.places is None else self.features[self.places]
        if features.ndim == 2:
            sums = counts.new_zeros(num_classes, num_classes)
            matrix = sums.index_add_(0, self.labels, features).T
        else:
            places = features * num_classes + self.labels
            matrix = torch.bincount(places, minlength=num_classes**2).to(counts)
            matrix = matrix.view(num_classes, num_classes)
        matrix /= counts.clamp(min=1)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            only = torch.zeros(num_classes, len(empty)).to(counts)
            only[empty, torch.arange(len(empty)).to(empty)] = 1.0
            matrix[:, empty] = self.mean(only)
        return matrix

    def mean(self, priors: Tensor) -> Tensor:
        """`matrix @ priors`, without the matrix: the mean feature were the mix a prior.

        Args:
            priors: (num_classes,) or (num_classes, columns).
        Returns: the shape of `priors`, the type of `posteriors`.
        """
        columns = priors.to(self.posteriors).reshape(len(priors), -1)
        weights = (columns / self.counts.clamp(min=1)[:, None])[self.labels]
        if (self.counts == 0).any():
            totals = collect(self.posteriors, torch.ones_like(weights[:, :1]), *self._shape)
            tiny = torch.finfo(totals.dtype).tiny
            shares = torch.where(self.counts[:, None] > 0, 0.0, columns / totals.clamp(min=tiny))
            for rows in blocks(len(weights), len(columns)):
                chosen = rows if self.places is None else self.places[rows]
                weights[rows] += self.posteriors[chosen] @ shares
        return collect(self.features, weights, *self._shape).reshape(priors.shape)

    def noise(self, weights: Tensor, prior: Tensor) -> Tensor:
        """How `matrix @ prior` moves when the source samples are re-weighted.

        A class with one sample does not show its own spread; that of the others stands in for it,
        or, where none has two, the spread of all samples, less what the model says is between
        classes.

        Args:
            weights: (samples, columns), each sample's weight less 1.
            prior: (num_classes,).
        Returns: (num_classes, columns).
        """
        counts, prior = self.counts.clamp(min=1), prior.to(self.posteriors)
        spread = prior.square() / counts
        shown = torch.where(self.counts > 1, spread, 0.0).sum()
        share = (prior / counts)[self.labels][:, None]
        if shown == 0:
            scaled = weights * share * self._within**0.5
            total = share.sum().clamp(min=torch.finfo(share.dtype).tiny)  # 0: of no such class
            scaled -= share / total * scaled.sum(dim=0)
            return collect(self.features, scaled, *self._shape)
        # The mean of n samples that is taken from the same n is nearer to them by (n - 1) / n.
        inflate = (counts / (counts - 1).clamp(min=0.5) * spread.sum() / shown).sqrt()
        scaled = weights * share * inflate[self.labels][:, None]
        by_class = scaled.new_zeros(len(prior), scaled.shape[1]).index_add_(0, self.labels, scaled)
        scaled -= (by_class / counts[:, None])[self.labels]
        return collect(self.features, scaled, *self._shape)

    @property
    def _within(self) -> float:
        """Share of the features' variance that is within classes, as the model sees it."""
        sums = collect(self.posteriors, self.posteriors.new_ones(len(self.labels), 1), *self._shape)
        mix = (sums / sums.sum()).clamp(min=torch.finfo(sums.dtype).tiny)
        moves = scatter(mix[:, 0])
        weights = moves.new_empty(len(self.labels), PROBES)
        total = torch.zeros_like(mix[:, 0])
        for rows in blocks(len(weights), len(mix)):
            chosen = rows if self.places is None else self.places[rows]
            weights[rows] = self.posteriors[chosen] @ (moves / sums)
            total += self.posteriors[chosen].square().sum(dim=0)
        mean = sums[:, 0] / len(weights)
        variance = ((total / len(weights) - mean**2) / mix[:, 0]).sum()
        between = collect(self.posteriors, weights, *self._shape).square() / mix
        return float((1 - between.sum(dim=0).mean() / variance).clamp(min=0.1, max=1.0))

    @property
    def _shape(self) -> tuple[int, Tensor | None]:
        return self.posteriors.shape[1], self.places


def scatter(mix: Tensor) -> Tensor:
    """Random moves of a mix with covariance diag(mix) - mix mix^T: (num_classes, draws).

    Args:
        mix: (num_classes,).
    """
    normal = torch.randn(len(mix), PROBES, generator=torch.Generator().manual_seed(0)).to(mix)
    moves = mix.sqrt()[:, None] * normal
    return moves - mix[:, None] * moves.sum(dim=0)


def invertible(matrix: Tensor) -> bool:
    """Whether the confusion matrix can be inverted without drowning the answer in noise.

    A matrix of more than 2,048 classes counts as not invertible: nobody has the samples for it.
    """
    if len(matrix) > DENSE:
        return False
    values = torch.linalg.svdvals(matrix.double())
    return bool(values[-1] * CONDITION > values[0])


def bbse_prior(matrix: Tensor, mean: Tensor) -> Tensor:
    """The mix whose predictions would be those of the target: matrix^-1 mean, cut off at 0.

    Lipton, Wang and Smola, Detecting and correcting for label shift with black box predictors,
    ICML 2018, arXiv 1802.03916, section 4, for p(prediction | class) in place of the joint
    p(prediction, class): the weights w of the paper are this result over the source mix.
    Departs from the paper in: nothing; negative weights become 0, as in the authors' code, and the
    result is made to sum to 1.

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


def rlls_prior(
    matrix: Tensor,
    mean: Tensor,
    reference: Tensor,
    radius: float,
) -> tuple[Tensor, float]:
    """Regularised learning under label shift: the mix nearest to `reference` that fits.

    Azizzadenesheli et al., Regularized learning for domain adaptation under label shifts, ICLR
    2019, arXiv 1903.09734, equation 6: with A = matrix * diag(reference), b = mean - A 1 and
    weights 1 + theta, minimises |A theta - b| + radius * |theta| subject to theta >= -1.
    Departs from the paper in: nothing. The norms are not squared, but the solution is that of
    |A theta - b|^2 + ridge * |theta|^2 for one ridge, which is searched. The quadratic problem is
    solved by pivoting up to 2,048 classes and by accelerated projected gradient above.

    Args:
        matrix: (num_classes, num_classes), p(feature | class).
        mean: (num_classes,), mean feature of the target samples.
        reference: (num_classes,), the mix to stay near.
        radius: weight of the second norm.
    Returns: (num_classes,) summing to 1; and the ridge.
    """
    scaled = matrix * reference
    residual = scaled.sum(dim=1) - mean
    dense = len(reference) <= DENSE
    theta = torch.zeros_like(reference)
    bound = _largest_eigenvalue(scaled)
    if (scaled.T @ residual).norm() <= radius * residual.norm():
        return reference.clone(), 1e9 * bound  # theta = 0 is the solution
    # The sought ridge has ridge * |theta| = radius * |fit|, and the left side over the right grows
    # with it: halve the interval of its logarithm.
    low, high = math.log(1e-13 * bound), math.log(1e9 * bound)
    for _ in range(50 if dense else 20):
        ridge = math.exp((low + high) / 2)
        theta = (_by_pivoting if dense else _by_gradient)(scaled, residual, ridge, theta)
        if radius * (scaled @ theta + residual).norm() > ridge * theta.norm():
            low = math.log(ridge)
        else:
            high = math.log(ridge)
    prior = reference * (1 + theta)
    return prior / prior.sum(), ridge


def _by_pivoting(scaled: Tensor, residual: Tensor, ridge: float, theta: Tensor) -> Tensor:
    """Least |scaled @ theta + residual|^2 + ridge * |theta|^2 for theta >= -1, exactly.

    Block principal pivoting (Kim and Park, SIAM Journal on Scientific Computing 2011): solve for
    the free entries, exchange those that break a condition, a few times.
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
        # All at once while that gets somewhere, else one at a time, which cannot go in circles.
        patience = 3 if len(wrong) < fewest else patience - 1
        fewest = min(fewest, len(wrong))
        wrong = wrong if patience >= 0 else wrong[-1:]
        bound[wrong] = ~bound[wrong]
    return theta.clamp(min=-1)


def _by_gradient(scaled: Tensor, residual: Tensor, ridge: float, theta: Tensor) -> Tensor:
    """As `_by_pivoting`, nearer by 50 steps of accelerated projected gradient."""
    bound = _largest_eigenvalue(scaled) + ridge
    ahead, momentum = theta, 1.0
    for _ in range(50):
        slope = scaled.T @ (scaled @ ahead + residual) + ridge * ahead
        after = (ahead - slope / bound).clamp(min=-1)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        # No momentum where it points uphill: O'Donoghue and Candes's restart.
        uphill = ((ahead - after) * (after - theta)).sum() > 0
        push = torch.where(uphill, 0.0, (momentum - 1) / following)
        ahead, theta, momentum = after + push * (after - theta), after, following
    return theta


def _largest_eigenvalue(matrix: Tensor) -> float:
    """An upper bound of the largest eigenvalue of matrix.T @ matrix."""
    return float(matrix.abs().sum(dim=0).max() * matrix.abs().sum(dim=1).max())
