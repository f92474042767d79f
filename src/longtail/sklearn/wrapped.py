"""What a scikit-learn classifier tells of itself: log probabilities, and how it was weighted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from longtail.sklearn.predictions import Array, PriorClassifier


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


def expressed_mix(estimator: Any, classes: Array, share: Array, even: bool) -> Array | None:
    """The class mix that a fitted classifier's probabilities express; None where it cannot tell.

    Args:
        estimator: as `final_estimator` finds it.
        classes: (num_classes,), labels.
        share: (num_classes,), of each class in the training set, weights counted.
        even: whether all samples had the same weight.
    """
    for name in ("expressed_prior_", "class_prior_", "priors_"):  # ours, Bayes, discriminants
        own = getattr(estimator, name, None)
        if own is not None:
            return np.asarray(own)
    if hasattr(estimator, "class_log_prior_"):
        mass = np.exp(estimator.class_log_prior_)
    else:
        wanted = getattr(estimator, "class_weight", None)
        # Some balance the weighted samples, some the samples.
        if (isinstance(wanted, str) and not even) or _is_told_inside(estimator):
            return None
        mass = share * _class_weights(wanted, classes, share)
    mix: Array = mass / mass.sum()
    return mix


def _is_told_inside(estimator: Any) -> bool:
    """Whether a classifier within this one weighs its classes or has a prior of its own."""
    if isinstance(estimator, CalibratedClassifierCV):  # which fits them to the mix that it sees
        return False
    return any(
        isinstance(value, PriorClassifier)
        or (value is not None and name.endswith(("__class_weight", "__priors", "__class_prior")))
        for name, value in estimator.get_params().items()
    )


def _class_weights(wanted: Any, classes: Array, share: Array) -> Array:
    """What each class's share was multiplied by, up to a factor: `class_weight` as numbers."""
    if isinstance(wanted, str):  # "balanced", or a forest's "balanced_subsample"
        inverse: Array = 1 / share
        return inverse
    if isinstance(wanted, Mapping):
        return np.array([wanted.get(label, 1.0) for label in classes.tolist()])
    return np.ones(len(classes))
