"""Held-out predictions of a wrapped classifier, and routing of the parameters of `fit`."""

import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled, process_routing
from sklearn.utils.metadata_routing import MetadataRequest, get_routing_for_object
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _check_sample_weight, has_fit_parameter

from longtail.errors import InputError
from longtail.sklearn.predictions import Array, encode, plain_array
from longtail.sklearn.wrapped import floored, layers, log_probabilities


@dataclass(frozen=True)
class HeldOut:
    """Logits of held-out samples, in the order of the folds.

    Attributes:
        logits: (held_out, num_classes).
        target: (held_out,), class index.
        index: (held_out,), index of each sample in the training set.
    """

    logits: Array
    target: Array
    index: Array


def checked_weight(owner: Any, sample_weight: Any, labels: Array) -> Array | None:
    """Sample weights (samples,), each 0 or more; None stays None."""
    if sample_weight is None:
        return None
    weight: Array = _check_sample_weight(plain_array(sample_weight), labels[:, None])
    if (weight < 0).any():
        raise InputError(
            f"sample_weight of {type(owner).__name__} must be >= 0, got {weight.min():g}"
        )
    return weight


def route(owner: Any, sample_weight: Any, params: dict[str, Any]) -> Bunch:
    """Parameters that `fit` passes on to `estimator.fit`, `splitter.split` and `scorer.score`.

    With scikit-learn's metadata routing, each of them gets what it requests. Without, `groups` goes
    to the splitter and everything else to the estimator.
    """
    name = type(owner).__name__
    if sample_weight is not None:
        params = {**params, "sample_weight": sample_weight}
    if _routing_enabled():
        return process_routing(owner, "fit", **params)
    groups = params.pop("groups", None)
    if groups is not None and not hasattr(owner.cv, "split"):
        raise InputError(
            f"groups of {name} requires cv to be a splitter that uses groups, got {owner.cv!r}"
        )
    if sample_weight is not None and not has_fit_parameter(owner.estimator, "sample_weight"):
        raise InputError(
            f"sample_weight of {name} requires an estimator whose fit takes it, got "
            f"{type(owner.estimator).__name__}; for a pipeline pass STEP__sample_weight, or enable "
            "metadata routing"
        )
    split = {} if groups is None else {"groups": groups}
    return Bunch(estimator=Bunch(fit=params), splitter=Bunch(split=split), scorer=Bunch(score={}))


def final_weight(estimator: Any, params: dict[str, Any]) -> Array | None:
    """The sample weights that reach the innermost classifier, None if all are 1.

    Args:
        estimator: the fitted classifier, also a pipeline or a search.
        params: parameters passed to its `fit`.
    """
    *outer, final = layers(estimator)
    name = "sample_weight"
    if _routing_enabled():
        request = get_routing_for_object(final)
        if isinstance(request, MetadataRequest):
            wanted = request.fit.requests.get(name)
            if wanted is False:
                return None
            # `route` has resolved the alias of the estimator itself.
            name = wanted if outer and isinstance(wanted, str) else name
    else:
        name = "".join(f"{each.steps[-1][0]}__" for each in outer if isinstance(each, Pipeline))
        name += "sample_weight"
    weight = params.get(name)
    return None if weight is None else np.asarray(weight, dtype=float)


def predict_held_out(
    owner: Any, X: Any, labels: Array, routed: Bunch, n_jobs: int | None = None
) -> HeldOut:
    """Logits of samples from clones of the classifier that were trained on the other folds.

    Args:
        owner: the fitted meta-estimator, with `estimator`, `classes_`, `cv` (None: 5 folds) and
            `random_state`, which shuffles the samples before they are divided into a number of
            folds. A frozen estimator predicts all samples itself.
        X: (samples, features).
        labels: (samples,), class labels.
        routed: see `route`.
        n_jobs: number of parallel fits, as in scikit-learn.
    """
    estimator, classes = owner.estimator, owner.classes_
    target = encode(labels, classes, type(estimator).__name__)
    if isinstance(estimator, FrozenEstimator):
        logits = _aligned(estimator, X, classes)
        return HeldOut(floored(logits), target, np.arange(len(target)))
    folds = _folds(owner.cv, X, labels, target, owner.random_state, routed.splitter.split)
    logits = Parallel(n_jobs=n_jobs)(
        delayed(_fit_and_predict)(
            clone(estimator), X, labels, classes, routed.estimator.fit, train, test
        )
        for train, test in folds
    )
    index = np.concatenate([test for _, test in folds])
    return HeldOut(floored(np.concatenate(logits)), target[index], index)


def _fit_and_predict(
    model: Any,
    X: Any,
    labels: Array,
    classes: Array,
    params: dict[str, Any],
    train: Array,
    test: Array,
) -> Array:
    params = _check_method_params(X, params, indices=train)
    model.fit(_safe_indexing(X, train), labels[train], **params)
    return _aligned(model, _safe_indexing(X, test), classes)


def _aligned(model: Any, X: Any, classes: Array) -> Array:
    """Logits in the order of `classes`; an unseen class gets the lowest logit."""
    logits = log_probabilities(model, X)
    if len(model.classes_) == len(classes):
        return logits
    aligned = np.full((len(logits), len(classes)), np.finfo(logits.dtype).min)
    aligned[:, np.searchsorted(classes, model.classes_)] = logits
    return aligned


def _folds(
    cv: Any, X: Any, labels: Array, target: Array, random_state: Any, split: dict[str, Any]
) -> list[tuple[Array, Array]]:
    """(train, test) indices of each fold.

    With a number of folds, a class with one sample is in every training fold and never held out.
    """
    cv = 5 if cv is None else cv
    if not isinstance(cv, Integral):
        splitter = check_cv(cv, labels, classifier=True)
        return [(np.asarray(a), np.asarray(b)) for a, b in splitter.split(X, labels, **split)]
    count = np.bincount(target)
    if count.max() < 2:
        raise InputError(
            "y must have at least one class with 2 or more samples, got 1 sample per class"
        )
    shared, alone = np.flatnonzero(count[target] > 1), np.flatnonzero(count[target] == 1)
    splitter = StratifiedKFold(min(cv, int(count.max())), shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # A class with fewer samples than folds is held out in only some of them.
        warnings.filterwarnings("ignore", message="The least populated class")
        return [
            (np.concatenate([shared[kept], alone]), shared[held])
            for kept, held in splitter.split(shared, target[shared])
        ]
