"""Posterior of a target's class prior given its mean posterior: mean, covariance, projection."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.shift.estimation.response import Response

# Strengths of shrinkage to average over: from this many pseudo-samples per class to this many times
# the target samples, and their number.
WEAKEST, STRONGEST, STRENGTHS = 0.5, 1e3, 25
# Powers of the training prior to average over: within this many standard deviations.
REACH, POWERS = 3.0, 41


@dataclass(frozen=True)
class Belief:
    """Mean and covariance of a class prior, given the target.

    Attributes:
        mean: (num_classes,), float64, sums to 1; entries may be negative.
        covariance: (num_classes, num_classes), float64.
        concentration: number of target samples that the prior knowledge is worth.
    """

    mean: Tensor
    covariance: Tensor
    concentration: float

    def error_of(self, estimate: Tensor) -> Tensor:
        """Mean squared error of an estimate: covariance plus squared difference from the mean."""
        offset = estimate - self.mean
        return self.covariance + torch.outer(offset, offset)

    def spread(self, possible: Tensor) -> "Belief":
        """The same with additional classes of probability 0.

        Args:
            possible: (all classes,), True for the classes of this one.
        """
        mean = torch.zeros(len(possible), dtype=torch.float64)
        mean[possible] = self.mean
        covariance = torch.zeros(len(possible), len(possible), dtype=torch.float64)
        covariance[torch.outer(possible, possible)] = self.covariance.flatten()
        return Belief(mean, covariance, self.concentration)

    def projected(self, least: float) -> Tensor:
        """The most probable class prior without negative entries, (num_classes,), sums to 1.

        Entries at 0 move the others by their covariance, until none is negative.

        Args:
            least: smallest entry, so that a class that was not seen is not ruled out.
        """
        bound, value = self.mean < 0, self.mean
        for _ in range(len(bound)):
            if not bool(bound.any()):
                break
            between = self.covariance[bound][:, bound]
            between.diagonal().add_(1e-12 * between.diagonal().mean() + 1e-300)
            push = torch.linalg.solve(between, -self.mean[bound])
            value = self.mean + self.covariance[:, bound] @ push
            value[bound] = 0.0
            released = bound.clone()
            released[bound] = push < 0
            wrong = (value < -1e-12) | released
            if not bool(wrong.any()):
                break
            bound = bound ^ wrong
        value = torch.where(self.covariance.diagonal() > 0, value.clamp(min=least), 0.0)
        return value / value.sum()


def believe(response: Response, reference: Tensor, training: Tensor) -> Belief:
    """The class prior given a target, averaged over distances from the likeliest shifts.

    The prior is assumed to be normal about tilted(power) = reference * training^power, with the
    covariance (diag(u) - u u^T) / concentration of a Dirichlet distribution about the uniform prior
    u. Both numbers are unknown and averaged over, each weighted by its likelihood: the power with a
    normal prior of standard deviation 1 about the tilted prior that is nearest to uniform, the
    concentration with a prior that is uniform in its inverse. So a target near the family of tilted
    priors is shrunk towards it, and one far from it is not; and the covariance includes the
    uncertainty about both.

    Args:
        response: response of the target.
        reference: (num_classes,), float64, above 0.
        training: (num_classes,), float64, above 0.
    """
    mean, matrix = response.mean, response.matrix
    powers, log_weight = _powers(reference, training)
    powers, log_weight = powers.to(mean), log_weight.to(mean)
    log_tilted = reference.log().to(mean)[:, None] + training.log().to(mean)[:, None] * powers
    tilted = log_tilted.softmax(dim=0)
    num_classes = len(mean)
    noise = response.noise(response.prior)
    # Square root of the covariance at concentration 1: classes are exchangeable.
    root = (torch.eye(num_classes).to(mean) - 1 / num_classes) / num_classes**0.5
    left, singular, right = torch.linalg.svd(noise.whiten(matrix @ root))
    misfit = left.T @ noise.whiten(mean[:, None] - matrix @ tilted)
    lowest = WEAKEST * num_classes + 1
    highest = max(STRONGEST * response.samples, 10 * lowest)
    concentrations = torch.logspace(
        math.log10(lowest), math.log10(highest), STRENGTHS, dtype=torch.float64
    ).to(mean)[:, None]
    information = singular.square()
    variance = 1 + information / concentrations
    evidence = -0.5 * (variance.log().sum(dim=1)[:, None] + (1 / variance) @ misfit.square())
    weights = (evidence - concentrations.log() + log_weight).flatten().softmax(dim=0)
    gain = singular / (concentrations + information)
    moves = (gain[:, :, None] * misfit).transpose(0, 1).reshape(num_classes, -1)
    basis = root @ right.T
    centres = tilted.repeat(1, STRENGTHS) + basis @ moves
    centre = centres @ weights
    by_strength = weights.reshape(STRENGTHS, -1).sum(dim=1)
    remaining = by_strength @ (1 / (concentrations + information))
    apart = centres - centre[:, None]
    covariance = (basis * remaining) @ basis.T + (apart * weights) @ apart.T
    concentration = 1 / float(by_strength @ (1 / concentrations[:, 0]))
    return Belief(centre.cpu(), covariance.cpu(), concentration)


def _powers(reference: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of the training prior, and the logarithms of their weights."""
    direction = training.log() - training.log().mean()
    length = float(direction.square().sum())
    if length < 1e-12 * len(training):
        return torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    middle = -float((direction * reference.log()).sum()) / length
    steps = torch.linspace(-REACH, REACH, POWERS, dtype=torch.float64)
    return middle + steps, -0.5 * steps.square()
