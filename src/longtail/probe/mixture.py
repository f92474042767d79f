"""Gaussian mixture likelihood on fixed features: class scores of stored samples."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.errors import InputError
from longtail.losses import class_scores
from longtail.memory import ClassQueue
from longtail.prior import ClassPrior
from longtail.probe.linear import Linear
from longtail.ranges import check_range

# Rows scored at once, which limits the similarities to 64 MB with the usual number of keys.
ROWS = 2048


class Mixture:
    """One Gaussian kernel per stored sample of a class, on the unit sphere.

    The class score of GML (Suh and Seo, ICML 2023, arXiv 2305.01160; `longtail.losses.
    class_scores`), an estimate of log p(x | class) without weights to learn, which suits a class of
    five samples as well as one of five hundred. Differences from the paper: the features are fixed,
    so the projection is found in closed form: it whitens the scatter within the classes (shrunk
    towards a multiple of the identity), and keeps the directions in which the classes differ most.

    Args:
        x: (samples, num_features), the training set.
        target: (samples,), class index.
        prior: the class prior of the training set.
        seed: chooses the samples that are stored if a class has more than its share.
        scale: (num_features,), divisor of each feature; None: 1.
        keys: number of samples stored in the class-wise queue, at least one per class.
        width: number of dimensions of the projection.
        shrinkage: in (0, 1], share of the identity in the scatter.
        temperature: above 0, divides the cosines.
    """

    def __init__(
        self,
        x: Tensor,
        target: Tensor,
        prior: ClassPrior,
        seed: int,
        scale: Tensor | None = None,
        *,
        keys: int = 4096,
        width: int = 256,
        shrinkage: float = 0.6,
        temperature: float = 0.1,
    ) -> None:
        _check(keys, width, shrinkage, temperature, prior.num_classes)
        self.num_classes, self.temperature = prior.num_classes, temperature
        self.mean = x.mean(0)
        self.scale = torch.ones_like(self.mean) if scale is None else scale
        centred = (x - self.mean) / self.scale
        self.projection = discriminants(centred, target, prior.num_classes, width, shrinkage)
        # Half of the slots are shared equally by all classes, half by frequency.
        base = max(1, keys // (2 * prior.num_classes))
        queue = ClassQueue(prior, size=keys, width=len(self.projection), base=base)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        queue.enqueue(self.embed(x[order]), target[order], order)
        filled = queue.labels >= 0
        self.keys, self.labels = queue.features[filled].to(x.dtype), queue.labels[filled]
        self.index = queue.index[filled]

    def embed(self, x: Tensor) -> Tensor:
        """Unit-norm embeddings (samples, width)."""
        return F.normalize((x - self.mean) / self.scale @ self.projection.T, dim=1)

    def scores(self, x: Tensor) -> Tensor:
        """Class scores (samples, num_classes) of new samples."""
        return self._scores(x, None)

    def scores_without_own(self, x: Tensor) -> Tensor:
        """Class scores (samples, num_classes) of the training set, without each sample's own key.

        A class whose only key is the sample's own gets the mean of the other classes' scores.
        """
        return self._scores(x, torch.arange(len(x)))

    def _scores(self, x: Tensor, index: Tensor | None) -> Tensor:
        parts = []
        for start in range(0, len(x), ROWS):
            own = None if index is None else index[start : start + ROWS, None] == self.index
            scores = class_scores(
                self.embed(x[start : start + ROWS]),
                self.keys,
                self.labels,
                self.num_classes,
                self.temperature,
                exclude=own,
            )
            known = torch.isfinite(scores)
            total = torch.where(known, scores, 0).sum(1, keepdim=True)
            parts.append(torch.where(known, scores, total / known.sum(1, keepdim=True)))
        return torch.cat(parts)


@dataclass(frozen=True)
class MixtureHead:
    """Class scores plus a linear head fitted on top of them."""

    mixture: Mixture
    linear: Linear

    def logits(self, x: Tensor) -> Tensor:
        """Logits (samples, num_classes), which express the uniform prior."""
        return self.mixture.scores(x) + self.linear.logits(x)


def discriminants(
    x: Tensor, target: Tensor, num_classes: int, width: int, shrinkage: float
) -> Tensor:
    """Projection (width or fewer, num_features) that whitens within classes, widest first.

    Fisher's linear discriminants with a shrunk scatter within the classes.

    Args:
        x: (samples, num_features), centred.
        target: (samples,), class index.
        num_classes: number of classes.
        width: number of directions to keep, at most.
        shrinkage: in (0, 1], share of the identity in the scatter.
    """
    num_features = x.shape[1]
    basis = None
    if len(x) < num_features:
        # Outside the span of the samples the scatter is a multiple of the identity, and no two
        # classes differ there.
        basis = torch.linalg.qr(x.T)[0]
        x = x @ basis
    count = torch.bincount(target, minlength=num_classes).to(x)
    means = x.new_zeros(num_classes, x.shape[1]).index_add_(0, target, x) / count[:, None]
    inner = x - means[target]
    within = inner.T @ inner / len(x)
    level = within.diagonal().sum() / num_features
    # Without any scatter (one sample per class), the axes are unchanged.
    level = torch.where(level > 0, level, 1.0)
    within = (1 - shrinkage) * within
    within.diagonal().add_(shrinkage * level)
    factor = torch.linalg.cholesky(within)
    white = torch.linalg.solve_triangular(factor, x.T, upper=False)
    directions = torch.linalg.eigh(white @ white.T)[1].flip(1)[:, :width]
    projection: Tensor = torch.linalg.solve_triangular(factor.T, directions, upper=True).T
    return projection if basis is None else projection @ basis.T


def _check(keys: int, width: int, shrinkage: float, temperature: float, num_classes: int) -> None:
    check_range("keys of gml", keys, whole=True)
    if keys < num_classes:
        raise InputError(f"keys of gml must be >= the {num_classes} classes, got {keys}")
    check_range("width of gml", width, least=1, whole=True)
    check_range("shrinkage of gml", shrinkage, above=0, most=1)
    check_range("temperature of gml", temperature, above=0)
