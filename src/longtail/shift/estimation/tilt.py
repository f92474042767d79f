"""The likeliest shifts: the source prior times a power of the training prior."""

import math

import torch
from torch import Tensor

# Largest ratio of factors that a power may cause, and the number of powers to start from.
SPAN, STEPS = 1e6, 61


class Tilts:
    """The class priors source_prior * training_prior^power, normalised.

    Most shifts of long-tailed data are of this kind: classes that are rare in training are less
    rare, or more so, where the model is used. If the source prior is the training prior, power 0
    keeps it, -1 makes it uniform and -2 reverses it. A single number can be estimated reliably from
    samples that are too few to say anything about single classes.

    Args:
        reference: (num_classes,), float64, the source prior; 0 stays 0.
        training: (num_classes,), float64, above 0, not uniform.

    Attributes:
        powers: (steps,), float64, from which `nearest` starts.
        slope: (num_classes,), float64, change of the prior with the power, at the source prior.
    """

    def __init__(self, reference: Tensor, training: Tensor) -> None:
        self._log_reference, self._log_training = reference.log(), training.log()
        limit = math.log(SPAN) / float(self._log_training.max() - self._log_training.min())
        self.powers = torch.linspace(-limit, limit, STEPS, dtype=torch.float64)
        self.slope = reference * (self._log_training - (reference * self._log_training).sum())

    def priors(self, powers: Tensor) -> Tensor:
        """(num_classes, number of powers), float64; columns sum to 1."""
        tilted = self._log_reference[:, None] + self._log_training[:, None] * powers
        return tilted.softmax(dim=0)

    def nearest(self, expected: Tensor, mean: Tensor, samples: int) -> tuple[float, Tensor]:
        """The power, and its prior (num_classes,), whose mean feature is nearest to the target's.

        Least squares, each class's term divided by the variance of a count.

        Args:
            expected: (num_classes, steps), mean feature under each prior of `powers`.
            mean: (num_classes,), mean feature of the target.
            samples: number of target samples.
        """
        misfit = (expected - mean[:, None]).square() / (mean + 1 / samples)[:, None]
        errors = misfit.sum(dim=0, dtype=torch.float64).cpu()
        best = int(errors[1:-1].argmin()) + 1
        left, middle, right = errors[best - 1 : best + 2].tolist()
        bend = left - 2 * middle + right
        # The minimum of the parabola through three powers: at most half a step away, or a whole
        # step at an end of the grid.
        move = min(max((left - right) / (2 * bend), -1.0), 1.0) if bend > 0 else 0.0
        power = self.powers[best] + move * (self.powers[1] - self.powers[0])
        return float(power), self.priors(power[None])[:, 0]


def has_direction(training: Tensor) -> bool:
    """Whether the powers of a prior differ from each other; those of a uniform one do not."""
    possible = training[training > 0]
    return bool(possible.max() > (1 + 1e-6) * possible.min())
