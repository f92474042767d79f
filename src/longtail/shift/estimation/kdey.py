"""Class prior by maximum likelihood under kernel densities of the posteriors (KDEy-ML)."""

import torch
from torch import Tensor

from longtail.shift.estimation.em import em_prior
from longtail.shift.estimation.posterior import blocks

# Standard deviation of the kernel, and the density of a row without a source sample nearby, both
# from the authors' code.
BANDWIDTH, LEAST = 0.1, 1e-12


def kdey_prior(source: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """The class prior that maximises the target's likelihood under kernel densities.

    Moreo, Gonzalez and del Coz, Kernel density estimation for multiclass quantification, Machine
    Learning 2025, arXiv 2401.00490, section 4.3: the density of a class on the simplex is the mean
    of Gaussian kernels, of standard deviation 0.1, at the posteriors of its source samples; the
    mixture of these densities is fitted to the target.
    Differences from the paper: the maximum is found by EM, and a class without a source sample gets
    0.

    Args:
        source: (source samples, num_classes), posteriors.
        labels: (source samples,), int64.
        target: (samples, num_classes), posteriors.
    Returns: (num_classes,), float64, sums to 1.
    """
    counts = torch.bincount(labels, minlength=source.shape[1]).to(source)
    known = counts > 0
    membership = torch.nn.functional.one_hot(labels, source.shape[1]).to(source)
    membership = (membership / counts.clamp(min=1))[:, known]
    densities = target.new_empty(len(target), membership.shape[1])
    for rows in blocks(len(target), len(source)):
        distance = torch.cdist(target[rows], source) / BANDWIDTH
        densities[rows] = (-0.5 * distance.square()).exp() @ membership + LEAST
    densities /= densities.sum(dim=1, keepdim=True)
    classes = densities.shape[1]
    uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
    prior = torch.zeros(source.shape[1], dtype=torch.float64)
    prior[known.cpu()] = em_prior(densities, uniform)
    return prior
