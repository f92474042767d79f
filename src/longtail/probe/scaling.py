"""Decides whether the columns of a table are standardised before a head is fitted."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from longtail.probe.linear import Features, moments

Standardize = bool | Literal["auto"]

# The features of one network share a unit, and their ranges are within a factor of about ten. The
# columns of a table have their own units, and their ranges differ by a factor of a hundred and
# more.
SPREAD = 20.0


def column_scale(x: Features, weight: Tensor, standardize: Standardize) -> Tensor | None:
    """Standard deviation of each column if the columns are to be standardised, else None.

    `auto` standardises if the ranges (maximum minus minimum) of two columns differ by more than a
    factor of 20. It uses ranges rather than deviations, since a feature that is rarely active, such
    as a pixel at the border, has a small deviation but a range like that of the others.

    Args:
        x: (samples, num_features).
        weight: (samples,), weight of each sample.
        standardize: True, False or `auto`.

    Returns: (num_features,), 1 for a constant column.
    """
    if isinstance(x, Tensor):
        variance, low, high = moments(x, weight)[1], x.amin(0), x.amax(0)
    else:
        mean = torch.from_numpy(np.asarray(x.T @ weight.numpy())) / weight.sum()
        variance = moments(x, weight)[1] - mean.square()
        low, high = (torch.from_numpy(v.toarray().reshape(-1)) for v in (x.min(0), x.max(0)))
    ranges = high - low
    if standardize == "auto":
        varying = ranges[ranges > 0]
        standardize = len(varying) > 0 and bool(varying.max() > SPREAD * varying.min())
    if not standardize:
        return None
    return torch.where((ranges > 0) & (variance > 0), variance, 1.0).sqrt()
