"""A test for shift of the class prior, by drawing the noise of both samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.shift.estimation.confusion import Confusion, collect, scatter
from longtail.shift.estimation.tilt import Tilts


def resample_weights(samples: int, draws: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Weights of `draws` resamples less 1: (samples, draws), Poisson(1), every draw centred.

    Poisson counts are those of drawing with replacement without the constraint on their sum, which
    centring restores. They are scaled so that n samples do not look like n - 1.
    """
    rate = torch.ones(samples, draws, dtype=like.dtype)
    weights: Tensor = torch.poisson(rate, generator=generator).to(like.device)
    weights -= weights.mean(dim=0)
    weights *= (samples / max(samples - 1, 1)) ** 0.5
    return weights


def p_value(
    difference: Tensor, noise: Tensor, prior: Tensor, samples: int, slope: Tensor | None = None
) -> float:
    """P-value of the hypothesis that a mean posterior differs from its expectation by chance.

    Under label shift the mean posterior of a target with a given class prior equals that of the
    source samples with each class weighted by its share, even for a badly calibrated model. The
    statistic is the sum over classes of the squared difference over (share + 1 / target samples).

    Args:
        difference: (num_classes,), mean posterior of the target less what the hypothesis expects.
        noise: (num_classes, draws), of the difference, under the hypothesis.
        prior: (num_classes,), of the hypothesis.
        samples: number of target samples.
        slope: (num_classes,), how the mean posterior moves along the likeliest change of the
            prior (see `Tilts`). The square of the difference along it, over its mean, then joins
            the statistic with the same variance: among thousands of classes with few samples
            each, the sum over classes alone would miss what all of them say together.
    """
    scale = prior.to(noise) + 1 / samples
    # Uninformative logits leave rounding noise on both sides of the comparison.
    difference = difference * (difference.abs() > 64 * torch.finfo(noise.dtype).eps)
    moves = torch.cat([difference[:, None], noise], dim=1)
    every = (moves.square() / scale[:, None]).sum(dim=0)
    statistic = (every - every.mean()) / every.std().clamp(min=torch.finfo(every.dtype).tiny)
    if slope is not None:
        along = (moves * (slope / scale)[:, None]).sum(dim=0).square()
        statistic += along / along.mean().clamp(min=torch.finfo(along.dtype).tiny) / 2**0.5
    return float((statistic >= statistic[0]).double().mean())


@dataclass(frozen=True)
class Expected:
    """Mean posterior of a target that is expected under a class prior.

    Without source samples the posteriors are assumed to be calibrated: their mean must be the prior
    that they express.

    Attributes:
        mean: (num_classes,).
        noise: (num_classes, draws), of resampling the source; 0 without one.
        slope: (num_classes,), change of the mean with the power of the tilts; None without.
        tilted: (num_classes, powers), mean under each power of the tilts; None without.
    """

    mean: Tensor
    noise: Tensor
    slope: Tensor | None = None
    tilted: Tensor | None = None

    @classmethod
    def of(
        cls, prior: Tensor, tilts: Tilts | None, confusion: Confusion, weights: Tensor
    ) -> "Expected":
        """Computed from source samples and their resamples, in one pass.

        Args:
            prior: (num_classes,).
            tilts: the likeliest shifts from it, or None.
            confusion: confusion of the source posteriors.
            weights: (source samples, draws), as `resample_weights` returns them.
        """
        near = [] if tilts is None else [tilts.slope[:, None], tilts.priors(tilts.powers)]
        means, noise = confusion.mean_and_noise(torch.cat([prior[:, None], *near], dim=1), weights)
        if tilts is None:
            return cls(means[:, 0], noise)
        return cls(means[:, 0], noise, means[:, 1], means[:, 2:])


class Resampled:
    """Mean posterior of a target of many classes, and its noise by resampling.

    Args:
        posteriors: (rows, num_classes), of the target.
        indices: int64, rows that are the target; None for all.
        weights: (samples, draws), as `resample_weights` returns them.

    Attributes:
        mean: (num_classes,), mean posterior of the target.
        noise: (num_classes, draws), of the mean.
    """

    def __init__(self, posteriors: Tensor, indices: Tensor | None, weights: Tensor) -> None:
        self.samples = len(weights)
        every = torch.cat([weights.new_ones(self.samples, 1), weights], dim=1) / self.samples
        moments = collect(posteriors, every, posteriors.shape[1], indices)
        self.mean, self.noise = moments[:, 0], moments[:, 1:]

    def strength(self, prior: Tensor, confusion: Confusion, weights: Tensor) -> float:
        """Number of samples that `prior` counts for besides the target's own, estimated by moments.

        If the target's prior were drawn from a Dirichlet distribution about `prior` with
        concentration s, its covariance would be (diag(prior) - prior prior^T) / (s + 1), and the
        statistic of `p_value` would exceed its expectation by the contribution of that covariance.
        This is solved for s: a target near the prior is shrunk towards it strongly, one far from it
        hardly.

        Args:
            prior: (num_classes,).
            confusion: confusion of the source posteriors.
            weights: (source samples, draws), of the resamples of the source.
        Returns: at least a tenth of a sample per class, at most a thousand times the target.
        """
        q = prior.to(self.mean)
        means, noise = confusion.mean_and_noise(torch.cat([q[:, None], scatter(q)], dim=1), weights)
        parts = self.mean[:, None] - means[:, :1], self.noise - noise, means[:, 1:]
        scale = (q + 1 / self.samples)[:, None]
        found, by_chance, unit = (
            float((part.square() / scale).sum(dim=0).mean()) for part in parts
        )
        excess = found - by_chance
        most = 1e3 * self.samples
        return max(unit / max(excess, unit / most) - 1, 0.1 * len(q))
