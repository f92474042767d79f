"""Metrics of logits: accuracy by class and group, macro-F1, calibration, proper scores, intervals.

Also suspected label errors, by out-of-sample probabilities.
"""

from longtail.metrics.calibration import CalibrationCurve, calibration_curve, classwise_ece
from longtail.metrics.classification import classification_metrics, metrics_from_scores
from longtail.metrics.confusion import Confusion, confusion_matrix, per_class_recall
from longtail.metrics.intervals import (
    accuracy_intervals,
    best_run,
    difference_interval,
    resampled_metrics,
    wilson_interval,
)
from longtail.metrics.label_errors import suspected_label_errors
from longtail.metrics.scores import SampleScores, score_samples

__all__ = [
    "CalibrationCurve",
    "Confusion",
    "SampleScores",
    "accuracy_intervals",
    "best_run",
    "calibration_curve",
    "classification_metrics",
    "classwise_ece",
    "confusion_matrix",
    "difference_interval",
    "metrics_from_scores",
    "per_class_recall",
    "resampled_metrics",
    "score_samples",
    "suspected_label_errors",
    "wilson_interval",
]
