"""One-step bootstrap: how far an estimated class mix moves when both samples are drawn again."""

import torch
from torch import Tensor

from longtail.shift.estimation.em import FLOOR
from longtail.shift.estimation.likelihood import LabelLikelihood, centred, solve_gram
from longtail.shift.estimation.moments import Confusion, collect, scatter
from longtail.shift.estimation.posterior import row_blocks

# 97.5% point of the standard normal distribution.
Z = 1.959963984540054


def resample_weights(samples: int, draws: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Weights of `draws` resamples less 1: (samples, draws), Poisson(1), every draw centred.

    Poisson counts are what drawing with replacement gives each sample, without the bound on their
    sum; centring puts that bound back. Scaled so that n samples do not look like n - 1.
    """
    rate = torch.ones(samples, draws, dtype=like.dtype)
    weights: Tensor = torch.poisson(rate, generator=generator).to(like.device)
    weights -= weights.mean(dim=0)
    weights *= (samples / max(samples - 1, 1)) ** 0.5
    return weights


def calibration_moves(near: LabelLikelihood, weights: Tensor) -> Tensor:
    """Changes of a fitted calibration under each resample of the source, by one Newton step.

    A resample in which a class comes more often also has a larger log mix for it; the bias answers
    only for the rest.

    Args:
        near: the likelihood that the calibration maximises, at the maximum.
        weights: (samples, draws), as `resample_weights` makes them.
    Returns: (num_classes + scales, draws), bias then log scale.
    """
    counts = near.by_class(torch.ones_like(weights[:, :1])).clamp(min=1)
    log_mix = near.by_class(weights) / counts
    return near.newton(near.scores(weights) - near.bias_curvature(log_mix))


def em_moves(
    posteriors: Tensor,
    reference: Tensor,
    prior: Tensor,
    strength: float,
    towards: Tensor,
    weights: Tensor,
    logits: Tensor,
    scale: Tensor,
    calibration: Tensor | None,
) -> Tensor:
    """Changes of the EM estimate under each resample, by one Newton step of its likelihood.

    With u = q / reference for the estimate q, and r the posteriors under q, divided by u to stay
    finite where q is 0, the step solves (r^T r + strength * diag(towards / u^2)) x = r^T weights +
    (the change of r^T 1 that comes from the calibration's moves), and q moves by reference * x. So
    the pull alone holds a class that the samples do not speak of where it is, near 0.

    Args:
        posteriors: (samples, num_classes), of the target under `reference`; overwritten.
        reference: (num_classes,).
        prior: (num_classes,), the estimate.
        strength: as in `em_prior`.
        towards: (num_classes,), as there.
        weights: (samples, draws), as `resample_weights` makes them.
        logits: (samples, num_classes), of the target.
        scale: () or (num_classes,), of the calibration.
        calibration: (num_classes + scales, draws), how it moves; None when it is fixed.
    Returns: (num_classes, draws).
    """
    p = reference.to(posteriors)
    ratio = torch.where(p > 0, prior.to(posteriors) / p, torch.ones_like(p))
    rows = posteriors.div_((posteriors @ ratio)[:, None])
    right = rows.T @ weights
    if calibration is not None:
        bias, log_scale = calibration[: len(p)], calibration[len(p) :]
        right += rows.sum(dim=0)[:, None] * bias - rows.T @ (rows @ (ratio[:, None] * bias))
        right += _scale_drift(rows, ratio, logits, scale.to(posteriors), log_scale)
    # A class that is ruled out has an empty column: any number above 0 on the diagonal will do.
    pull = max(strength, 1e-9) * towards.to(posteriors) / ratio.clamp(min=FLOOR).square()
    diagonal = torch.where(p > 0, pull, torch.ones_like(p))
    return p[:, None] * solve_gram(rows, diagonal, right)


def _scale_drift(
    rows: Tensor, ratio: Tensor, logits: Tensor, scale: Tensor, moves: Tensor
) -> Tensor:
    """Change of the summed posteriors (over ratio) when log scale moves, (num_classes, draws)."""
    by_class = torch.zeros_like(ratio)
    drift = torch.zeros(len(ratio), moves.shape[1]).to(moves)
    for block in row_blocks(rows):
        part = rows[block]
        sloped = centred(logits[block].to(part), scale).mul_(scale).mul_(part)
        by_class += sloped.sum(dim=0)
        # One scale for all classes: its move is a factor of the whole row.
        along = (sloped @ ratio)[:, None] if len(moves) == 1 else sloped @ (ratio[:, None] * moves)
        drift[:, : along.shape[1]] -= part.T @ along
    if len(moves) == 1:
        return (by_class + drift[:, 0])[:, None] * moves
    return by_class[:, None] * moves + drift


class ShiftTest:
    """Whether the target may have a given class mix, judged by one set of resamples.

    If it has, the mean posterior of the target equals that of the source samples with every class
    given its share in the mix: label shift leaves p(x | class) alone, so this holds for a badly
    calibrated model, too. Without source samples the posteriors are taken at their word: the mean
    must be the prior that they express. The statistic is the sum over classes of the squared
    difference over (share + 1 / target samples); it is compared with what the resamples give.

    Args:
        confusion: of the source posteriors, or None without a source.
        posteriors: of the target, rows as many as the samples or more.
        places: int64, rows that are the target, in place of all.
        source_weights: (source samples, draws), None without a source.
        target_weights: (samples, draws).

    Attributes:
        mean: (num_classes,), mean posterior of the target.
    """

    def __init__(
        self,
        confusion: Confusion | None,
        posteriors: Tensor,
        places: Tensor | None,
        source_weights: Tensor | None,
        target_weights: Tensor,
    ) -> None:
        self.confusion, self.source_weights = confusion, source_weights
        self.samples = len(target_weights)
        every = target_weights.new_ones(self.samples, 1)
        weights = torch.cat([every, target_weights], dim=1) / self.samples
        moments = collect(posteriors, weights, posteriors.shape[1], places)
        self.mean, self.noise = moments[:, 0], moments[:, 1:]

    def p_value(self, mix: Tensor, slope: Tensor | None = None) -> float:
        """Of the hypothesis that the target has `mix`, (num_classes,); 1 for one sample.

        Args:
            mix: (num_classes,).
            slope: (num_classes,), how the mean posterior moves along the likeliest change of the
                mix (see `Tilts`). The square of the difference along it, over its mean, then joins
                the statistic with the same variance: among thousands of classes with few samples
                each, the sum over classes alone would miss what all of them say together.
        """
        if self.samples < 2:
            return 1.0
        difference, noise, scale = self._compare(mix)
        moves = torch.cat([difference[:, None], noise], dim=1)
        every = (moves.square() / scale[:, None]).sum(dim=0)
        statistic = (every - every.mean()) / every.std().clamp(min=torch.finfo(every.dtype).tiny)
        if slope is not None:
            along = (moves * (slope / scale)[:, None]).sum(dim=0).square()
            statistic += along / along.mean().clamp(min=torch.finfo(along.dtype).tiny) / 2**0.5
        return float((statistic >= statistic[0]).double().mean())

    def _compare(self, mix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Target less hypothesis, the same for each resample, and the divisor of their squares."""
        q = mix.to(self.mean)
        expected, noise = q, self.noise
        if self.confusion is not None and self.source_weights is not None:
            expected = self.confusion.mean(q)
            noise = noise - self.confusion.noise(self.source_weights, q)
        difference = self.mean - expected
        # Logits that say nothing leave rounding noise on both sides of the comparison.
        difference = difference * (difference.abs() > 64 * torch.finfo(q.dtype).eps)
        return difference, noise, q + 1 / self.samples

    def strength(self, mix: Tensor) -> float:
        """Samples that `mix` is to count for beside the target's own, found by moments.

        Were the target's mix drawn from a Dirichlet distribution about `mix` with concentration s,
        its covariance would be (diag(mix) - mix mix^T) / (s + 1), and the statistic would exceed
        what chance gives by what that covariance makes of it. Solved for s: a target near the mix
        is drawn to it with all force, one far from it hardly.

        Args:
            mix: (num_classes,).
        Returns: at least a tenth of a sample a class, at most a thousand times the target.
        """
        assert self.confusion is not None
        difference, noise, scale = self._compare(mix)
        moves = self.confusion.mean(scatter(mix.to(self.mean)))
        unit = float((moves.square() / scale[:, None]).sum(dim=0).mean())
        by_chance = float((noise.square() / scale[:, None]).sum(dim=0).mean())
        excess = float((difference.square() / scale).sum()) - by_chance
        most = 1e3 * self.samples
        return max(unit / max(excess, unit / most) - 1, 0.1 * len(difference))


def intervals(prior: Tensor, moves: Tensor, samples: int, pull: Tensor) -> Tensor:
    """95% interval of each class's probability.

    Wilson's score interval, widened: all q with (prior - q)^2 <= z^2 (q (1 - q) / samples + e),
    where the first part is the variance of counting `samples` known labels, and e is what the
    resampled variance holds beyond that: confusion between classes, and a finite source sample.
    It stays within [0, 1] and does not collapse for a class that was never seen.

    Args:
        prior: (num_classes,).
        moves: (num_classes, draws), changes of the estimate under each resample.
        samples: number of target samples.
        pull: (num_classes,), what the samples have no part in of each probability; a lower end
            that is no higher is 0.
    Returns: (num_classes, 2), float64.
    """
    q = prior.double().cpu()
    variance = moves.double().square().mean(dim=1).cpu()
    extra = (variance - q * (1 - q) / samples).clamp(min=0)
    width = Z**2 / samples
    middle = 2 * q + width
    root = (middle**2 - 4 * (1 + width) * (q**2 - Z**2 * extra)).clamp(min=0).sqrt()
    ends = torch.stack([middle - root, middle + root], dim=1) / (2 * (1 + width))
    ends[:, 0] = torch.where(ends[:, 0] > pull, ends[:, 0], 0.0)
    return ends.clamp(0, 1)
