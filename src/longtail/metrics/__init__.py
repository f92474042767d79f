"""Judging logits: accuracy by class and group, macro-F1, calibration, proper scores."""

from longtail.metrics.calibration import CalibrationCurve, calibration_curve
from longtail.metrics.classification import classification_metrics, metrics_from_scores
from longtail.metrics.confusion import Confusion, confusion_matrix, per_class_recall
from longtail.metrics.scores import SampleScores, score_samples

__all__ = [
    "CalibrationCurve",
    "Confusion",
    "SampleScores",
    "calibration_curve",
    "classification_metrics",
    "confusion_matrix",
    "metrics_from_scores",
    "per_class_recall",
    "score_samples",
]
