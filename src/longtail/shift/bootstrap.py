"""One-step bootstrap: how far an estimated class mix moves when both samples are drawn again."""

import torch
from torch import Tensor

from longtail.shift.likelihood import LabelLikelihood, centred, solve_gram
from longtail.shift.moments import Confusion
from longtail.shift.posterior import row_blocks

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
    weights: Tensor,
    logits: Tensor,
    scale: Tensor,
    calibration: Tensor | None,
) -> Tensor:
    """Changes of the EM estimate under each resample, by one Newton step of its likelihood.

    With r the posteriors under the estimate q, divided by q / reference to stay finite where q is
    0, the step solves (r^T r + strength * diag(reference)) x = r^T weights + (the change of r^T 1
    that comes from the calibration's moves), and q moves by reference * x.

    Args:
        posteriors: (samples, num_classes), of the target under `reference`; overwritten.
        reference: (num_classes,).
        prior: (num_classes,), the estimate.
        strength: as in `em_prior`.
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
    diagonal = torch.where(p > 0, max(strength, 1e-9) * p, torch.ones_like(p))
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


def shift_test(
    confusion: Confusion | None,
    posteriors: Tensor,
    reference: Tensor,
    source_weights: Tensor | None,
    target_weights: Tensor,
) -> float:
    """p-value of the hypothesis that the target has the class mix `reference`.

    If it has, the mean posterior of the target equals that of the source samples with every class
    given its share in `reference`: label shift leaves p(x | class) alone, so this holds for a
    badly calibrated model, too. Without source samples the posteriors are taken at their word: the
    mean must be `reference`. The statistic is the sum over classes of the squared difference over
    (reference + 1 / target samples); it is compared with what the resamples give.

    Args:
        confusion: of the source posteriors, or None without a source.
        posteriors: (samples, num_classes), of the target, under `reference`.
        reference: (num_classes,).
        source_weights: (source samples, draws).
        target_weights: (samples, draws).
    """
    samples = len(posteriors)
    if samples < 2:
        return 1.0
    p = reference.to(posteriors)
    difference = posteriors.mean(dim=0) - p
    noise = posteriors.T @ target_weights / samples
    if confusion is not None and source_weights is not None:
        difference = posteriors.mean(dim=0) - confusion.mean(p)
        noise = noise - confusion.noise(source_weights, p)
    # Logits that say nothing leave rounding noise on both sides of the comparison.
    difference = difference * (difference.abs() > 64 * torch.finfo(p.dtype).eps)
    scale = p + 1 / samples
    found = (difference.square() / scale).sum()
    by_chance = (noise.square() / scale[:, None]).sum(dim=0)
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance)))


def intervals(prior: Tensor, moves: Tensor, samples: int) -> Tensor:
    """95% interval of each class's probability.

    Wilson's score interval, widened: all q with (prior - q)^2 <= z^2 (q (1 - q) / samples + e),
    where the first part is the variance of counting `samples` known labels, and e is what the
    resampled variance holds beyond that: confusion between classes, and a finite source sample.
    It stays within [0, 1] and does not collapse for a class that was never seen.

    Args:
        prior: (num_classes,).
        moves: (num_classes, draws), changes of the estimate under each resample.
        samples: number of target samples.
    Returns: (num_classes, 2), float64.
    """
    q = prior.double().cpu()
    variance = moves.double().square().mean(dim=1).cpu()
    extra = (variance - q * (1 - q) / samples).clamp(min=0)
    width = Z**2 / samples
    middle = 2 * q + width
    root = (middle**2 - 4 * (1 + width) * (q**2 - Z**2 * extra)).clamp(min=0).sqrt()
    ends = torch.stack([middle - root, middle + root], dim=1) / (2 * (1 + width))
    return ends.clamp(0, 1)
