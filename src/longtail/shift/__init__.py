"""Priors that are known, estimated and shifted."""

from longtail.shift.adjust import PriorAdjusted, adjust
from longtail.shift.calibration import Calibration, fit_calibration
from longtail.shift.estimate import PriorEstimate, estimate_prior
from longtail.shift.priors import resolve_prior

__all__ = [
    "Calibration",
    "PriorAdjusted",
    "PriorEstimate",
    "adjust",
    "estimate_prior",
    "fit_calibration",
    "resolve_prior",
]
