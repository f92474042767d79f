"""Priors that are known, estimated and shifted."""

from longtail.shift.adjust import PriorAdjusted, adjust
from longtail.shift.estimate import estimate_prior
from longtail.shift.estimation.calibration import Calibration, fit_calibration
from longtail.shift.estimation.estimator import PriorEstimate
from longtail.shift.priors import read_prior, resolve_prior
from longtail.shift.protocol import (
    dirichlet_test_set,
    read_test_list,
    shifted_test_sets,
    write_test_list,
)
from longtail.shift.table import Column, protocol_table
from longtail.shift.tracker import PriorTracker

__all__ = [
    "Calibration",
    "Column",
    "PriorAdjusted",
    "PriorEstimate",
    "PriorTracker",
    "adjust",
    "dirichlet_test_set",
    "estimate_prior",
    "fit_calibration",
    "protocol_table",
    "read_prior",
    "read_test_list",
    "resolve_prior",
    "shifted_test_sets",
    "write_test_list",
]
