"""Class priors: known, estimated and shifted."""

from longtail.shift.adjust import PriorAdjusted, adjust
from longtail.shift.estimate import estimate_prior
from longtail.shift.estimation.calibration import Calibration, fit_calibration
from longtail.shift.estimation.estimator import PriorEstimate
from longtail.shift.estimation.interval import ConfidenceRegion
from longtail.shift.measures import (
    absolute_error,
    kl_divergence,
    normalised_absolute_error,
    normalised_match_distance,
    relative_absolute_error,
)
from longtail.shift.priors import expressed_prior, read_prior, resolve_prior
from longtail.shift.protocol import (
    dirichlet_test_set,
    read_test_list,
    shifted_test_sets,
    write_test_list,
)
from longtail.shift.table import Column, protocol_table
from longtail.shift.target_sets import target_sets
from longtail.shift.tracker import PriorTracker

__all__ = [
    "Calibration",
    "Column",
    "ConfidenceRegion",
    "PriorAdjusted",
    "PriorEstimate",
    "PriorTracker",
    "absolute_error",
    "adjust",
    "dirichlet_test_set",
    "estimate_prior",
    "expressed_prior",
    "fit_calibration",
    "kl_divergence",
    "normalised_absolute_error",
    "normalised_match_distance",
    "protocol_table",
    "read_prior",
    "read_test_list",
    "relative_absolute_error",
    "resolve_prior",
    "shifted_test_sets",
    "target_sets",
    "write_test_list",
]
