"""Log probabilities of wrapped classifiers, and the class prior that these express."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC

from longtail.sklearn.predictions import Array, PriorClassifier

# Logits further below the largest of their sample are raised to this distance: a forest's
# probability of 0 is coarse, not certain, and must not decide an estimate alone.
FLOOR = 14.0

# Ensembles of imbalanced-learn whose members see every class equally often, and the sampling
# strategies that ensure it. By name, since the package need not be installed.
BALANCED = {
    "BalancedBaggingClassifier",
    "BalancedRandomForestClassifier",
    "EasyEnsembleClassifier",
}
EVEN_STRATEGIES = ("auto", "all", "not minority")

# Parameters by which gradient boosting (XGBoost, LightGBM, CatBoost) weights the classes.
BOOSTING = ("scale_pos_weight", "is_unbalance", "class_weights", "auto_class_weights")


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


def floored(logits: Array) -> Array:
    """Logits at most `FLOOR` below the largest of their sample."""
    result: Array = np.maximum(logits, logits.max(axis=1, keepdims=True) - FLOOR)
    return result


def layers(estimator: Any) -> list[Any]:
    """A classifier and those inside it: in a search, as the last step of a pipeline, or frozen."""
    found = [estimator]
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return found
        found.append(estimator)


def is_frozen(estimator: Any) -> bool:
    """Whether a classifier, or one in it that it relies on for the prior, is not trained by `fit`.

    A frozen transformer does not matter.
    """
    chain = layers(estimator)
    if any(isinstance(each, FrozenEstimator) for each in chain):
        return True
    inside = _parameters(chain[-1]).values()
    return any(isinstance(value, FrozenEstimator) and is_classifier(value) for value in inside)


def expressed_prior(estimator: Any, classes: Array, share: Array, even: bool) -> Array | None:
    """The class prior that a fitted classifier's probabilities express; None: unknown.

    Args:
        estimator: the classifier, also a pipeline or a search.
        classes: (num_classes,), labels.
        share: (num_classes,), fraction of each class in the training set, weights counted.
        even: whether all samples had the same weight.
    """
    *outer, final = layers(estimator)
    if isinstance(final, PriorClassifier):
        return final.prior_of_predictions()
    for name in ("expressed_prior_", "class_prior_", "priors_"):  # of Bayes, discriminants
        own = getattr(final, name, None)
        if own is not None:
            return np.asarray(own)
    if isinstance(final, ComplementNB):  # whose scores leave class_log_prior_ out
        mass = np.ones(len(classes))
    elif hasattr(final, "class_log_prior_"):
        mass = np.exp(final.class_log_prior_)
    else:
        drawn = share if not _samples_anew(final) else _even_draw(final, len(share))
        # The probabilities of a support vector machine are fitted to the unweighted samples.
        platt = isinstance(final, SVC | NuSVC) and hasattr(final, "predict_proba")
        wanted = None if platt else getattr(final, "class_weight", None)
        # Some balance the weighted samples, some the samples.
        uncertain = not even and (platt or isinstance(wanted, str) or drawn is not share)
        if drawn is None or uncertain or _is_told_inside(final):
            return None
        if any(_samples_anew(step) for each in outer for step in _transformers(each)):
            return None
        mass = drawn * _class_weights(wanted, classes, drawn)
    prior: Array = mass / mass.sum()
    return prior


def _transformers(estimator: Any) -> list[Any]:
    return [step for _, step in estimator.steps[:-1]] if isinstance(estimator, Pipeline) else []


def _even_draw(estimator: Any, num_classes: int) -> Array | None:
    """The uniform prior if an ensemble draws all classes equally often, else None."""
    known = any(base.__name__ in BALANCED for base in type(estimator).__mro__)
    even = getattr(estimator, "sampling_strategy", None) in EVEN_STRATEGIES
    if known and even and getattr(estimator, "sampler", None) is None:
        return np.full(num_classes, 1 / num_classes)
    return None


def _samples_anew(value: Any) -> bool:
    """Whether an object is a sampler, or a classifier of imbalanced-learn that contains one."""
    bases = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    return hasattr(value, "fit_resample") or (
        "imblearn" in bases and hasattr(value, "sampling_strategy")
    )


def _is_told_inside(estimator: Any) -> bool:
    """Whether a classifier has class weights of gradient boosting, or contains one with a prior.

    That is one with class weights, class sampling or a prior of its own.
    """
    return any(
        isinstance(value, PriorClassifier | ComplementNB)
        or (name.endswith("__fit_prior") and not value)
        or _samples_anew(value)
        or (value is not None and name.endswith(("__class_weight", "__priors", "__class_prior")))
        or (name.rpartition("__")[2] in BOOSTING and _is_set(value))
        for name, value in _parameters(estimator).items()
    )


def _parameters(estimator: Any) -> dict[str, Any]:
    """The parameters of a classifier, and of those inside it, that may change its prior.

    Those of a calibrated classifier do not, as its calibration restores the prior of `y`; but a
    temperature has no bias to do so. Of a stack, only the final estimator counts.
    """
    if isinstance(estimator, CalibratedClassifierCV) and estimator.method != "temperature":
        return {}
    parameters: dict[str, Any] = estimator.get_params()
    if isinstance(estimator, StackingClassifier):
        return {k: v for k, v in parameters.items() if k.startswith("final_estimator")}
    return parameters


def _is_set(value: Any) -> bool:
    """Whether a class weight is anything but None, False or 1."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    return value is not None and not (np.isscalar(value) and value == 1)


def _class_weights(wanted: Any, classes: Array, share: Array) -> Array:
    """The factor of each class's share, up to a common one: `class_weight` as numbers."""
    if isinstance(wanted, str):  # "balanced", or a forest's "balanced_subsample"
        inverse: Array = 1 / share
        return inverse
    if isinstance(wanted, Mapping):
        return np.array([wanted.get(label, 1.0) for label in classes.tolist()])
    return np.ones(len(classes))
