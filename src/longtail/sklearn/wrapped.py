"""What a scikit-learn classifier tells of itself: log probabilities, and how it was weighted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from longtail.sklearn.predictions import Array


def log_probabilities(estimator: Any, X: Any) -> Array:
    """Logits (samples, num_classes) of a fitted classifier; see `PriorAdjustedClassifier`."""
    if hasattr(estimator, "predict_proba"):
        probability = np.asarray(estimator.predict_proba(X))
        logits: Array = np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))
        return logits
    decision = np.asarray(estimator.decision_function(X))
    if decision.ndim == 1:
        decision = np.stack([np.zeros_like(decision), decision], axis=1)
    return decision


def final_estimator(estimator: Any) -> Any:
    """The classifier inside a search, a pipeline or a FrozenEstimator."""
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def class_weights(estimator: Any, classes: Array, share: Array) -> Array:
    """What each class's share of the training set was multiplied by, up to a factor.

    Args:
        estimator: a fitted classifier, with or without `class_weight`.
        classes: (num_classes,), labels.
        share: (num_classes,), of each class in the training set.
    """
    wanted = getattr(estimator, "class_weight", None)
    if isinstance(wanted, str):  # "balanced", or a forest's "balanced_subsample"
        inverse: Array = 1 / share
        return inverse
    if isinstance(wanted, Mapping):
        return np.array([wanted.get(label, 1.0) for label in classes.tolist()])
    return np.ones(len(classes))
