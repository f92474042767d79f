"""Mean predictions of the source samples of each class: the confusion matrix and its noise."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longtail.shift.estimation.posterior import taken

# Random directions for estimating the effect of a scattered prior.
PROBES = 20


def collect(
    features: Tensor, weights: Tensor, num_classes: int, indices: Tensor | None = None
) -> Tensor:
    """features.T @ weights, where `features` may be class indices instead of one-hot rows.

    Args:
        features: (samples, num_classes), or int64 (samples,).
        weights: (samples, columns).
        num_classes: number of classes.
        indices: int64, rows of `features` that are the samples, in place of all; two-dimensional
            features are not copied for it.
    Returns: (num_classes, columns).
    """
    total = weights.new_zeros(num_classes, weights.shape[1])
    if features.ndim == 1:
        return total.index_add_(0, features if indices is None else features[indices], weights)
    if indices is None:
        return features.T @ weights
    for rows, block in taken(features, indices):
        total.addmm_(block.T, weights[rows])
    return total


@dataclass(frozen=True)
class Confusion:
    """Mean features of the source samples of each class, p(prediction | class).

    A class without a sample takes the model's expectation: the mean feature of all samples, each
    weighted by its posterior of the class.

    Attributes:
        features: features of the source samples: (samples, num_classes) posteriors or (samples,)
            predicted classes.
        labels: (samples,), int64.
        posteriors: (samples, num_classes).
        indices: int64, rows of `features` and `posteriors` that are the samples, in place of all.
    """

    features: Tensor
    labels: Tensor
    posteriors: Tensor
    indices: Tensor | None = None

    @cached_property
    def counts(self) -> Tensor:
        """Source samples of each class, (num_classes,)."""
        num_classes = self.posteriors.shape[1]
        return torch.bincount(self.labels, minlength=num_classes).to(self.posteriors)

    @cached_property
    def matrix(self) -> Tensor:
        """(num_classes, num_classes), column c is the mean feature of class c."""
        num_classes, counts = self.posteriors.shape[1], self.counts
        if self.features.ndim == 2:
            # In float64, and block by block so that no second matrix is made: a float32 sum over
            # hundreds of thousands of samples of a class loses digits.
            sums = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=counts.device)
            for rows, block in taken(self.features, self.indices):
                sums.index_add_(0, self.labels[rows], block.double())
            matrix = sums.T.to(counts)
        else:
            features = self.features if self.indices is None else self.features[self.indices]
            cells = features * num_classes + self.labels
            matrix = torch.bincount(cells, minlength=num_classes**2).to(counts)
            matrix = matrix.view(num_classes, num_classes)
        matrix /= counts.clamp(min=1)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            only = torch.zeros(num_classes, len(empty)).to(counts)
            only[empty, torch.arange(len(empty)).to(empty)] = 1.0
            matrix[:, empty] = self.mean(only)
        return matrix

    def mean(self, priors: Tensor) -> Tensor:
        """`matrix @ priors`, without the matrix: the mean feature under a class prior.

        Args:
            priors: (num_classes,) or (num_classes, columns).
        Returns: the shape of `priors`, the type of `posteriors`.
        """
        weights = self._shares(priors.reshape(len(priors), -1))
        return collect(self.features, weights, *self._shape).reshape(priors.shape)

    def mean_and_noise(self, priors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`mean(priors)`, and how the first of them moves when the source samples are re-weighted.

        One pass over the samples. A class with one sample does not show its own spread, so that of
        the others is used; if no class has two samples, the spread of all samples is used, less the
        part that is between classes according to the model.

        Args:
            priors: (num_classes, columns).
            weights: (samples, draws), each sample's weight less 1.
        Returns: (num_classes, columns) and (num_classes, draws).
        """
        both = torch.cat([self._shares(priors), self._moves(weights, priors[:, 0])], dim=1)
        moments = collect(self.features, both, *self._shape)
        return moments[:, : priors.shape[1]], moments[:, priors.shape[1] :]

    def _shares(self, priors: Tensor) -> Tensor:
        """Weights of the samples whose sum of features is `mean`, (samples, columns)."""
        columns = priors.to(self.posteriors)
        weights = (columns / self.counts.clamp(min=1)[:, None])[self.labels]
        if (self.counts == 0).any():
            totals = collect(self.posteriors, torch.ones_like(weights[:, :1]), *self._shape)
            tiny = torch.finfo(totals.dtype).tiny
            shares = torch.where(self.counts[:, None] > 0, 0.0, columns / totals.clamp(min=tiny))
            for rows, block in taken(self.posteriors, self.indices):
                weights[rows] += block @ shares
        return weights

    def _moves(self, weights: Tensor, prior: Tensor) -> Tensor:
        """Weights of the samples whose sum of features is the noise, (samples, draws)."""
        counts, prior = self.counts.clamp(min=1), prior.to(self.posteriors)
        spread = prior.square() / counts
        shown = torch.where(self.counts > 1, spread, 0.0).sum()
        share = (prior / counts)[self.labels][:, None]
        if shown == 0:
            scaled: Tensor = weights * share * self._within**0.5
            total = share.sum().clamp(min=torch.finfo(share.dtype).tiny)  # 0: of no such class
            scaled -= share / total * scaled.sum(dim=0)
            return scaled
        # Samples are closer to their own mean: their variance about it is (n - 1) / n of the true
        # one.
        inflate = (counts / (counts - 1).clamp(min=0.5) * spread.sum() / shown).sqrt()
        scaled = weights * share * inflate[self.labels][:, None]
        by_class = scaled.new_zeros(len(prior), scaled.shape[1]).index_add_(0, self.labels, scaled)
        scaled -= (by_class / counts[:, None])[self.labels]
        return scaled

    @cached_property
    def _within(self) -> float:
        """Share of the features' variance that is within classes, according to the model."""
        sums = collect(self.posteriors, self.posteriors.new_ones(len(self.labels), 1), *self._shape)
        prior = (sums / sums.sum()).clamp(min=torch.finfo(sums.dtype).tiny)
        moves = scatter(prior[:, 0])
        weights = moves.new_empty(len(self.labels), PROBES)
        total = torch.zeros_like(prior[:, 0])
        for rows, block in taken(self.posteriors, self.indices):
            weights[rows] = block @ (moves / sums)
            total += block.square().sum(dim=0)
        mean = sums[:, 0] / len(weights)
        variance = ((total / len(weights) - mean**2) / prior[:, 0]).sum()
        between = collect(self.posteriors, weights, *self._shape).square() / prior
        return float((1 - between.sum(dim=0).mean() / variance).clamp(min=0.1, max=1.0))

    @property
    def _shape(self) -> tuple[int, Tensor | None]:
        return self.posteriors.shape[1], self.indices


def scatter(prior: Tensor) -> Tensor:
    """Random moves of a prior q with covariance diag(q) - q q^T: (num_classes, draws).

    Args:
        prior: (num_classes,).
    """
    normal = torch.randn(len(prior), PROBES, generator=torch.Generator().manual_seed(0)).to(prior)
    moves = prior.sqrt()[:, None] * normal
    return moves - prior[:, None] * moves.sum(dim=0)
