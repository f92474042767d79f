"""Confidence intervals and a joint confidence region for an estimated class prior."""

from dataclasses import dataclass

import torch
from scipy.stats import f
from torch import Tensor

from longtail.shift.priors import Prior, probabilities

# 97.5% point of the standard normal distribution.
Z = 1.959963984540054


def intervals(prior: Tensor, variance: Tensor, samples: int, concentration: float = 0.0) -> Tensor:
    """95% interval of each class's probability.

    Wilson's score interval, widened: all q with (prior - q)^2 <= z^2 (q (1 - q) / samples + e),
    where the first term is the variance of counting `samples` known labels, and e is the excess of
    `variance` over it, from confusion between classes and a finite source sample. It stays within
    [0, 1] and does not collapse for a class that was never seen. A lower end below the probability
    of one sample is set to 0.

    Args:
        prior: (num_classes,), float64, the estimate.
        variance: (num_classes,), float64, mean squared error of the estimate.
        samples: number of target samples.
        concentration: number of samples that the prior knowledge is worth.
    Returns: (num_classes, 2), float64; `prior` lies within.
    """
    counting = prior * (1 - prior) / (samples + concentration)
    extra = (variance - counting).clamp(min=0)
    width = Z**2 / samples
    middle = 2 * prior + width
    root = (middle**2 - 4 * (1 + width) * (prior**2 - Z**2 * extra)).clamp(min=0).sqrt()
    ends = torch.stack([middle - root, middle + root], dim=1) / (2 * (1 + width))
    ends[:, 0] = torch.where(ends[:, 0] * samples > 1, ends[:, 0], 0.0)
    # Rounding may leave a probability of 0 or 1 just outside.
    return torch.stack(
        [torch.minimum(ends[:, 0], prior), torch.maximum(ends[:, 1], prior)], dim=1
    ).clamp(0, 1)


@dataclass(frozen=True)
class ConfidenceRegion:
    """Joint 95% confidence region of a class prior: Hotelling's ellipsoid on the simplex.

    Attributes:
        centre: (num_classes,), float64, the estimate.
        covariance: (num_classes, num_classes), float64, mean squared error of the estimate; rows
            and columns of a class that is ruled out are 0.
        samples: number of target samples; with no more than there are classes, every prior is in
            the region.

    Examples:
        >>> cov = torch.tensor([[0.01, -0.01], [-0.01, 0.01]], dtype=torch.float64)
        >>> region = ConfidenceRegion(torch.tensor([0.5, 0.5], dtype=torch.float64), cov, 100)
        >>> region.contains([0.6, 0.4]), region.contains([0.8, 0.2])
        (True, False)
    """

    centre: Tensor
    covariance: Tensor
    samples: int

    def contains(self, prior: Prior) -> bool:
        """Whether a class prior lies in the region.

        Raises: ValueError: when it is not a prior over the same classes.
        """
        values = probabilities(prior, "prior of ConfidenceRegion.contains", len(self.centre))
        possible = self.covariance.diagonal() > 0
        if bool((values[~possible] > 0).any()):
            return False
        # The probabilities sum to 1, so one of them is redundant.
        free = possible.nonzero().flatten()[1:]
        rest = self.samples - len(free)
        if rest < 1:
            return True
        offset = (values - self.centre)[free]
        solved = torch.linalg.solve(self.covariance[free][:, free], offset)
        limit = len(free) * (self.samples - 1) / rest * f.ppf(0.95, len(free), rest)
        return float(offset @ solved) <= float(limit)
