"""Decides whether the columns of a table are standardised before a head is fitted."""

from typing import Literal

import torch
from torch import Tensor

from longtail.probe.linear import WIDE, Features, moments

Standardize = bool | Literal["auto"]

# The features of one network share a unit, and their ranges are within a factor of about ten. The
# columns of a table have their own units, and their ranges differ by a factor of a hundred and
# more. A few units of a network are nearly dead, and their ranges say nothing.
SPREAD = 20.0
DEAD = 0.05  # share of the features of a network whose ranges are left out


def column_scale(x: Features, weight: Tensor, standardize: Standardize) -> Tensor | None:
    """Standard deviation of each column if the columns are to be standardised, else None.

    `auto` standardises if the ranges (maximum minus minimum) of two columns differ by more than a
    factor of 20; of 256 columns or more, as of a network, the twentieth with the smallest ranges
    does not count. It uses ranges rather than deviations, since a feature that is rarely active,
    such as a pixel at the border, has a small deviation but a range like that of the others.

    Args:
        x: (samples, num_features).
        weight: (samples,), weight of each sample.
        standardize: True, False or `auto`.

    Returns: (num_features,), 1 for a constant column.
    """
    _, variance = moments(x, weight)
    if isinstance(x, Tensor):
        low, high = x.amin(0), x.amax(0)
    else:
        low, high = (torch.from_numpy(v.toarray().reshape(-1)) for v in (x.min(0), x.max(0)))
    ranges = high - low
    if standardize == "auto":
        varying = ranges[ranges > 0].sort().values
        dead = int(DEAD * len(varying)) if len(ranges) >= WIDE else 0
        standardize = len(varying) > 0 and bool(varying[-1] > SPREAD * varying[dead])
    if not standardize:
        return None
    return torch.where((ranges > 0) & (variance > 0), variance, 1.0).sqrt()
