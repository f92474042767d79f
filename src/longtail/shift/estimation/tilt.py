"""The class mixes nearest at hand: the source prior times a power of the training mix."""

import math

import torch
from torch import Tensor

from longtail.shift.estimation.moments import Confusion

# Largest factor over smallest that a power may bring, and the number of powers to start from.
SPAN, STEPS = 1e6, 61


class Tilts:
    """The mixes source_prior * training_prior^power, normalised, and what a model makes of each.

    Most shifts of long-tailed data are of this kind: classes that are rare in training are less
    rare, or more, where the model is used. Of a source prior that is the training mix itself, power
    0 leaves it, -1 makes it uniform and -2 turns it round. One number is found well from samples
    that are too few to say anything of single classes.

    Args:
        reference: (num_classes,), float64, the source prior; 0 stays 0.
        training: (num_classes,), float64, not uniform.
        confusion: of labelled source samples.

    Attributes:
        slope: (num_classes,), change of the mean posterior with the power, at the source prior.
    """

    def __init__(self, reference: Tensor, training: Tensor, confusion: Confusion) -> None:
        self.log_reference = reference.log()
        # A class that training did not have counts as its rarest.
        self.log_training = training.clamp(min=training[training > 0].min()).log()
        limit = math.log(SPAN) / float(self.log_training.max() - self.log_training.min())
        self.powers = torch.linspace(-limit, limit, STEPS, dtype=torch.float64)
        self.expected = confusion.mean(self.mixes(self.powers))
        self.slope = confusion.mean(
            reference * (self.log_training - (reference * self.log_training).sum())
        )

    def mixes(self, powers: Tensor) -> Tensor:
        """(num_classes, number of powers), float64; columns sum to 1."""
        tilted = self.log_reference[:, None] + self.log_training[:, None] * powers
        return tilted.softmax(dim=0)

    def nearest(self, mean: Tensor, samples: int) -> tuple[float, Tensor]:
        """The power, and its mix (num_classes,), whose mean posterior is nearest to the target's.

        Least squares, each class's term divided by the variance of a count. Only p(x | class) must
        be that of the source for this to be right: the posteriors may be badly calibrated.

        Args:
            mean: (num_classes,), mean posterior of the target.
            samples: that it is the mean of.
        """
        misfit = (self.expected - mean[:, None]).square() / (mean + 1 / samples)[:, None]
        errors = misfit.sum(dim=0, dtype=torch.float64).cpu()
        best = int(errors[1:-1].argmin()) + 1
        left, middle, right = errors[best - 1 : best + 2].tolist()
        bend = left - 2 * middle + right
        # The lowest point of the parabola through three powers, within half a step at the most.
        move = min(max((left - right) / (2 * bend), -1.0), 1.0) if bend > 0 else 0.0
        power = self.powers[best] + move * (self.powers[1] - self.powers[0])
        return float(power), self.mixes(power[None])[:, 0]


def has_direction(training: Tensor) -> bool:
    """Whether powers of a mix differ from each other: not those of a uniform one."""
    possible = training[training > 0]
    return bool(possible.max() > (1 + 1e-6) * possible.min())
