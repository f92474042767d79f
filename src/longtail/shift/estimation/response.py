"""Mean posteriors as a linear function of the class prior, with the covariance of their noise."""

from collections.abc import Iterator

import torch
from torch import Tensor

from longtail.shift.estimation.em import em_prior
from longtail.shift.estimation.posterior import taken

# Samples per class by which the prior of the features is shrunk towards the reference: features of
# a class that EM sets to 0 would say nothing about it.
SMOOTHING = 0.5
NEAR = 1e-5  # total movement of the prior in one step at which the search for it stops
# Degrees of freedom of the model's covariance within a class, in addition to those of the samples.
FREEDOM = 2.0
# Largest number of samples that a column of the model counts for, besides those of the source, and
# the smallest for a class without any: if all posteriors are 0 or 1, the moment estimate is 0 over
# 0.
MOST, FEWEST = 1e6, 1e-3
# Replaces a total of 0, for a class that no row can belong to.
LEAST = 1e-300


class Response:
    """The model mean = matrix @ prior + noise for the mean posterior of a target.

    Under label shift the mean of any feature of the target is linear in its class prior, with the
    mean feature of each class as columns, whether or not the model is calibrated. The feature is
    the posterior under an EM estimate of the prior: for a calibrated model the solution is then as
    efficient as maximum likelihood (Tian et al., ELSA: Efficient label shift adaptation through the
    lens of semiparametric models, ICML 2023; Garg et al., A unified view of label shift estimation,
    NeurIPS 2020).

    Each column is estimated in two ways: from the labelled samples of its class, with their noise,
    and from the model's posteriors of the target's rows, with its calibration error. The two are
    averaged as if the model's column came from `trust` samples. That number is estimated by moments
    from the excess of their distance over chance, lowered by one standard error, and at most the
    source samples per class, since a calibration was fitted to them. A class without a labelled
    sample takes the model's column, with a correspondingly larger uncertainty.

    Args:
        target: (rows, num_classes), posteriors of the target under `reference`.
        reference: (num_classes,), above 0.
        indices: int64, rows of `target` to use; default: all.
        source: (rows, num_classes), posteriors of the source under `reference`; None without.
        labels: (source samples,), int64.
        source_indices: int64, rows of `source` that are the samples; default: all.

    Attributes:
        samples: number of target samples.
        matrix: (num_classes, num_classes), float64, column c is the mean feature of class c.
        mean: (num_classes,), float64, mean feature of the target.
        prior: (num_classes,), float64, the EM estimate.
        trust: samples that a column of the model counts for.
    """

    def __init__(
        self,
        target: Tensor,
        reference: Tensor,
        indices: Tensor | None = None,
        source: Tensor | None = None,
        labels: Tensor | None = None,
        source_indices: Tensor | None = None,
    ) -> None:
        num_classes = len(reference)
        self.samples = len(target) if indices is None else len(indices)
        # Only the point of expansion of the response, which need not be exact.
        self.prior = em_prior(
            target, reference, SMOOTHING * num_classes, reference, indices, tolerance=NEAR
        ).to(target.device)
        ratio = self.prior / reference.to(target.device)
        self._rows, self._labels = _Rows(target, ratio, indices), labels
        self._labelled: _Rows | None = None
        self._totals, squares, self._model = self._rows.moments(None, num_classes)
        self.mean = self._totals / self.samples
        spread = squares - self._model.square().sum(dim=0)
        self._counts = torch.zeros_like(self.prior)
        self._columns, scatter = self._model, torch.zeros_like(self.prior)
        if source is not None and labels is not None:
            self._labelled = _Rows(source, ratio, source_indices)
            self._counts, squares, columns = self._labelled.moments(labels, num_classes)
            scatter = self._counts * (squares - columns.square().sum(dim=0))
            self._columns = torch.where(self._counts > 0, columns, self._model)
        self._freedom = (self._counts - 1).clamp(min=0) + FREEDOM
        within = (scatter + FREEDOM * spread) / self._freedom
        difference = (self._columns - self._model).square().sum(dim=0)
        self.trust = _trust(difference, within, self._counts, self.prior)
        weighted = self._columns * self._counts + self._model * self.trust
        self.matrix = weighted / (self._counts + self.trust)

    def expected(self, priors: Tensor) -> Tensor:
        """Mean feature under class priors (num_classes,) or (num_classes, columns)."""
        return self.matrix @ priors.to(self.matrix)

    def noise(self, prior: Tensor) -> "Noise":
        """Noise of mean - matrix @ prior.

        From counting the target's samples if `prior` were theirs, and from averaging those of the
        source.

        Args:
            prior: (num_classes,), class prior of the target.
        """
        prior = prior.to(self.mean)
        share = prior / self.samples + prior.square() / (self._counts + self.trust)
        # The covariance within a class is that of its samples and of the model, averaged.
        weights = FREEDOM * share / self._freedom
        per_row = self._rows.dot(weights / self._totals.clamp(min=LEAST))
        covariance = self._rows.gram(per_row) - (self._model * weights) @ self._model.T
        if self._labelled is not None and self._labels is not None:
            per_row = (share / self._freedom)[self._labels]
            covariance += self._labelled.gram(per_row, self._columns, self._labels)
        expected = self.matrix @ prior
        between = (self.matrix * prior) @ self.matrix.T - torch.outer(expected, expected)
        covariance += between / self.samples
        return Noise(covariance)


class Noise:
    """Normal noise with a covariance that may be singular: features sum to 1.

    Args:
        covariance: (num_classes, num_classes), float64.
    """

    def __init__(self, covariance: Tensor) -> None:
        values, self._basis = torch.linalg.eigh(covariance)
        least = 1e-7 * float(covariance.diagonal().mean()) + 1e-14
        self._scale = values.clamp(min=least).sqrt()[:, None]

    def whiten(self, values: Tensor) -> Tensor:
        """Whitened values (num_classes, columns), in which the noise has variance 1."""
        white: Tensor = (self._basis.T @ values) / self._scale
        return white

    def shape(self, white: Tensor) -> Tensor:
        """Noise (num_classes, columns) from standard normal numbers."""
        noise: Tensor = self._basis @ (self._scale * white)
        return noise


def _trust(difference: Tensor, within: Tensor, counts: Tensor, prior: Tensor) -> float:
    """Samples that a column of the model counts for, see `Response`.

    Args:
        difference: (num_classes,), squared distance of the source's columns from the model's.
        within: (num_classes,), variance of a sample of the class.
        counts: (num_classes,), source samples.
        prior: (num_classes,), weights of the classes.
    """
    if not bool(counts.any()):
        return MOST
    weights = torch.where(counts > 0, prior.square(), 0.0)
    chance = within / counts.clamp(min=1)
    excess = (weights * (difference - chance)).sum()
    error = (2 * (weights * chance).square()).sum().sqrt()
    unit = (weights * within).sum()
    if not bool(unit > 0):
        return MOST
    least = len(prior) / counts.sum()
    found = float(1 / torch.maximum((excess + error) / unit, least))
    return min(max(found, FEWEST), MOST)


class _Rows:
    """Posteriors under another prior, block by block in float64."""

    def __init__(self, posteriors: Tensor, ratio: Tensor, indices: Tensor | None) -> None:
        self.posteriors, self.ratio, self.indices = posteriors, ratio, indices

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for rows, block in taken(self.posteriors, self.indices):
            block = block.double() * self.ratio
            yield rows, block / block.sum(dim=1, keepdim=True)

    def moments(self, labels: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the classes, and the mean squared norm and mean (column) of each class's rows.

        Args:
            labels: (samples,), class of each row; None to weight rows by their posteriors.
            num_classes: number of classes.
        """
        totals, squares = (self.ratio.new_zeros(num_classes) for _ in range(2))
        sums = self.ratio.new_zeros(num_classes, num_classes)
        for rows, block in self:
            norms = block.square().sum(dim=1)
            if labels is None:
                totals += block.sum(dim=0)
                squares += norms @ block
                sums += block.T @ block
            else:
                mine = labels[rows]
                totals.index_add_(0, mine, torch.ones_like(norms))
                squares.index_add_(0, mine, norms)
                sums.index_add_(0, mine, block)
        least = totals.clamp(min=LEAST)
        return totals, squares / least, sums.T / least

    def dot(self, weights: Tensor) -> Tensor:
        """Posteriors @ weights, (samples,)."""
        return torch.cat([block @ weights for _, block in self])

    def gram(
        self, weights: Tensor, centres: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Weighted sum of outer products of the rows, less the column of their class if given."""
        total = self.ratio.new_zeros(len(self.ratio), len(self.ratio))
        for rows, block in self:
            if centres is not None and labels is not None:
                block = block - centres.T[labels[rows]]
            total += (block * weights[rows, None]).T @ block
        return total
