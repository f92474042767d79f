"""Errors of an estimated class prior."""

import torch
from torch import Tensor

from longtail.ranges import check_range
from longtail.shift.priors import Prior, probabilities


def absolute_error(true: Prior, estimated: Prior) -> float:
    """Mean absolute difference over classes (AE).

    Args:
        true: the true class prior.
        estimated: an estimate of it.
    Raises: ValueError: when one is not a prior, or they have different lengths.

    Examples:
        >>> round(absolute_error([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]), 4)
        0.0667
    """
    q, found = _both(true, estimated)
    return float((q - found).abs().mean())


def normalised_absolute_error(true: Prior, estimated: Prior) -> float:
    """Absolute error over the largest one possible for the true prior, in [0, 1] (NAE).

    Args:
        true: the true class prior.
        estimated: an estimate of it.
    Raises: ValueError: when one is not a prior, or they have different lengths.
    """
    q, found = _both(true, estimated)
    return float((q - found).abs().sum() / (2 * (1 - q.min())))


def relative_absolute_error(true: Prior, estimated: Prior, samples: int) -> float:
    """Mean over classes of the absolute difference over the true probability (RAE).

    Both are smoothed first, (p + e) / (1 + e * num_classes) with e = 1 / (2 * samples), so that a
    class with true probability 0 does not make it infinite.

    Args:
        true: the true class prior.
        estimated: an estimate of it.
        samples: number of samples that the estimate is from.
    Raises: ValueError: when one is not a prior, they have different lengths, or samples is below 1.
    """
    q, found = (_smoothed(p, samples) for p in _both(true, estimated))
    return float(((q - found).abs() / q).mean())


def kl_divergence(true: Prior, estimated: Prior, samples: int) -> float:
    """Kullback-Leibler divergence of the estimate from the true prior, nats (KLD).

    Smoothed as `relative_absolute_error`.

    Args:
        true: the true class prior.
        estimated: an estimate of it.
        samples: number of samples that the estimate is from.
    Raises: ValueError: when one is not a prior, they have different lengths, or samples is below 1.
    """
    q, found = (_smoothed(p, samples) for p in _both(true, estimated))
    return float((q * (q / found).log()).sum())


def normalised_match_distance(true: Prior, estimated: Prior) -> float:
    """Earth mover's distance between ordered classes, over the largest possible (NMD).

    Args:
        true: the true class prior, of classes in their order.
        estimated: an estimate of it.
    Raises: ValueError: when one is not a prior, or they have different lengths.
    """
    q, found = _both(true, estimated)
    return float((q - found).cumsum(0)[:-1].abs().sum() / max(len(q) - 1, 1))


def _both(true: Prior, estimated: Prior) -> tuple[Tensor, Tensor]:
    q = probabilities(true, "true prior")
    return q, probabilities(estimated, "estimated prior", len(q))


def _smoothed(prior: Tensor, samples: int) -> Tensor:
    check_range("samples of an error of a prior", samples, least=1)
    epsilon = torch.tensor(1 / (2 * samples), dtype=torch.float64)
    return (prior + epsilon) / (1 + epsilon * len(prior))
