"""Maximum-likelihood class prior of unlabelled samples, by accelerated EM."""

import warnings

import torch
from torch import Tensor

from longtail.shift.estimation.posterior import taken

# Smallest multiple of the reference prior that a class can fall to while extrapolating.
FLOOR = 1e-12
# Iterations of two EM steps and an extrapolation; a warning if they are not enough.
MAX_ITERATIONS = 1000


def default_strength(num_classes: int, samples: float) -> float:
    """Samples that the reference prior counts for: two per class, over the samples per class.

    A class with s samples on average has a relative error of 1 / sqrt(s) in its count. With many
    samples per class the shrinkage is negligible (with 100 per class, 0.02 of a sample each); with
    one, the reference has twice the weight of the data; with less it has nearly all.
    """
    return 2 * num_classes**2 / samples


def em_prior(
    posteriors: Tensor,
    reference: Tensor,
    strength: float = 0.0,
    towards: Tensor | None = None,
    indices: Tensor | None = None,
    tolerance: float | None = None,
) -> Tensor:
    """The class prior that maximises the likelihood of unlabelled samples.

    Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori
    probabilities, Neural Computation 14, 2002, equation 2.9; with q the sought prior and p the
    reference, maximises
        sum over samples of log(sum over c of posterior_c * q_c / p_c)
        + strength * sum over c of t_c log q_c.
    Differences from the paper: the second line, a Dirichlet prior with 1 + strength * t_c that
    counts as `strength` extra samples with the prior t; and the SQUAREM extrapolation of
    Varadhan and Roland (Scandinavian Journal of Statistics 2008), which has the same fixed point.

    Args:
        posteriors: (samples, num_classes), under `reference`, rows sum to 1.
        reference: (num_classes,); a class with 0 keeps 0.
        strength: samples that `towards` counts for, 0 or more.
        towards: (num_classes,), 0 where the reference is 0; default: the reference.
        indices: int64, rows of `posteriors` to take, in place of all; they are not copied.
        tolerance: stops when one step moves less than this in total; by default 1e-9 in float64
            and 1e-5 in float32.
    Returns: (num_classes,), float64, sums to 1.

    Examples:
        >>> sure = torch.eye(2)[torch.tensor([0, 0, 0, 1])]
        >>> em_prior(sure, torch.tensor([0.5, 0.5])).tolist()
        [0.75, 0.25]
    """
    if tolerance is None:
        tolerance = 1e-9 if posteriors.dtype == torch.float64 else 1e-5
    # Sums over samples are in float64: in float32, those over a million do not converge.
    p = reference.to(posteriors.device, torch.float64)
    t = p if towards is None else towards.to(p)
    samples = len(posteriors) if indices is None else len(indices)
    ratio = torch.where(p > 0, (t / p).clamp(min=FLOOR), 1.0)

    def step(ratio: Tensor) -> tuple[Tensor, Tensor]:
        """One EM step from `ratio` = q / p, and the objective where it started."""
        value = strength * (t * ratio.log()).sum()
        counts = torch.zeros_like(p)
        for _, block in taken(posteriors, indices):  # still in the cache the second time
            mass = block @ ratio.to(block)
            value = value + mass.double().log().sum()
            counts += mass.reciprocal() @ block
        moved = (ratio * counts + strength * t) / (samples + strength)
        return torch.where(p > 0, moved / p, torch.ones_like(p)), value

    for _ in range(MAX_ITERATIONS):
        first, _ = step(ratio)
        second, value = step(first)
        slope, bend = p * (first - ratio), p * (second - 2 * first + ratio)
        if bool(slope.abs().sum() < tolerance):
            break
        length = (slope.norm() / bend.norm().clamp(min=FLOOR)).clamp(min=1.0)
        guess = ratio + 2 * length * (first - ratio) + length**2 * (second - 2 * first + ratio)
        # A class that the extrapolation sets to 0 would grow from there in negligible steps.
        guess = torch.maximum(guess, second / 10).clamp(min=FLOOR)
        third, reached = step(guess / (p * guess).sum())
        ratio = torch.where(reached >= value, third, second)
    else:
        warnings.warn(
            f"em_prior stopped after {MAX_ITERATIONS} iterations, still moving by more than "
            f"{tolerance:g}",
            stacklevel=2,
        )
    prior = p * first
    return (prior / prior.sum()).cpu()


def em_variance(
    posteriors: Tensor,
    reference: Tensor,
    prior: Tensor,
    strength: float,
    towards: Tensor,
    indices: Tensor | None = None,
) -> Tensor:
    """Variance of each class of an EM estimate if the other classes were known: (num_classes,).

    The inverse of the curvature of the objective of `em_prior`, of one class at a time: a lower
    bound where classes are confused, at the cost of one pass.

    Args:
        posteriors: (rows, num_classes), under `reference`.
        reference: (num_classes,).
        prior: (num_classes,), float64, the estimate.
        strength: as in `em_prior`.
        towards: as in `em_prior`.
        indices: as in `em_prior`.
    """
    p = reference.to(posteriors)
    ratio = torch.where(p > 0, prior.to(posteriors) / p, torch.zeros_like(p))
    curvature = torch.zeros_like(ratio)
    for _, block in taken(posteriors, indices):
        curvature += (block / (block @ ratio)[:, None]).square().sum(dim=0)
    curvature = curvature.double().cpu() / reference.square() + strength * towards / prior.square()
    return torch.where(reference > 0, 1 / curvature, 0.0).nan_to_num(posinf=0.0)
