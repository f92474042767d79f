"""Any scikit-learn classifier under another prior: known, or estimated from what it predicts."""

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
)
from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.shift import PriorEstimate, estimate_prior
from longtail.shift.priors import Prior
from longtail.sklearn.predictions import (
    Array,
    PriorClassifier,
    TargetPrior,
    encode,
    plain_array,
    read_target_prior,
)
from longtail.sklearn.wrapped import expressed_mix, final_estimator, log_probabilities

# Logits further below the largest of their sample count as so far: a forest's probability of 0 is
# a coarse one, not a certain one, and must not decide an estimate alone.
FLOOR = 14.0


class PriorAdjustedClassifier(PriorClassifier):
    """Any scikit-learn classifier, predicting under another class mix than it was trained on.

    Its log probabilities (without `predict_proba` its decisions, which should then be
    log-likelihoods up to a constant: calibrate margins first) are taken from the prior that they
    express to the target. `fit` trains a clone; a model that is already trained comes in
    scikit-learn's `FrozenEstimator`, and `fit` then takes held-out samples.

    Args:
        estimator: the classifier, also a Pipeline or a search.
        target_prior: what to predict under unless a prediction is asked for another:
            `uniform`, `source`, probabilities in the order of `classes_` or by class label, or
            `estimate`: the mix of the samples that are predicted together, estimated from them
            alone (`longtail.shift.estimate_prior`). None changes nothing.
        expressed_prior: the mix that the estimator's probabilities express, in the same forms but
            `estimate`. None: `expressed_prior_` of a LongTailClassifier, the prior of a naive
            Bayes or discriminant classifier; else the mix of the `y` that `fit` gets, times the
            estimator's `class_weight` (with `balanced` the uniform one). Give it for a frozen
            estimator, one that draws its samples by class, or one that holds others which weigh
            their classes.
        cv: folds of the held-out predictions that `estimate` needs at the time of `fit`.
        random_state: of the folds.

    Attributes:
        estimator_: the fitted classifier.
        classes_: (num_classes,), labels.
        prior_: the ClassPrior that `source` stands for: of the training set; for a frozen
            estimator, or where `y` lacks a class, `expressed_prior`.
        expressed_prior_: (num_classes,), the prior that the estimator's probabilities express.
        n_features_in_: number of features, where the estimator knows it.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> x, y = [[0.0], [0.1], [0.2], [0.4], [0.5]], ["no", "no", "no", "no", "yes"]
        >>> model = PriorAdjustedClassifier(LogisticRegression(), target_prior="uniform").fit(x, y)
        >>> model.predict([[0.45]]).tolist(), model.predict([[0.45]], "source").tolist()
        (['yes'], ['no'])
    """

    def __init__(
        self,
        estimator: Any,
        target_prior: TargetPrior | None = None,
        *,
        expressed_prior: TargetPrior | None = None,
        cv: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.target_prior = target_prior
        self.expressed_prior = expressed_prior
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike | Tensor, sample_weight: ArrayLike | None = None) -> Self:
        """Fits a clone of the estimator and notes which prior it expresses.

        Args:
            X: (samples, features), whatever the estimator takes, or a tensor.
            y: (samples,), class labels.
            sample_weight: (samples,), for an estimator that takes it; weights count in the mix.

        Raises:
            ValueError: when an input or a prior is wrong.
        """
        X, labels = indexable(plain_array(X), self._labels(y))
        fit_params = {}
        if sample_weight is not None:
            if not has_fit_parameter(self.estimator, "sample_weight"):
                raise InputError(
                    f"sample_weight of PriorAdjustedClassifier needs an estimator that takes it, "
                    f"got {type(self.estimator).__name__}"
                )
            weight = _check_sample_weight(sample_weight, labels[:, None])
            if (weight < 0).any():
                raise InputError(
                    f"sample_weight of PriorAdjustedClassifier must be >= 0, got {weight.min():g}"
                )
            fit_params["sample_weight"] = weight
        self.estimator_ = clone(self.estimator).fit(X, labels, **fit_params)
        self.classes_ = self.estimator_.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        target = encode(labels, self.classes_, "PriorAdjustedClassifier.fit")
        self._note_priors(target, fit_params.get("sample_weight"))
        self._source = None
        if self._estimates():
            folds: Any = self.cv
            if not (isinstance(folds, int | np.integer) and folds >= 2):
                raise InputError(
                    f"cv of PriorAdjustedClassifier must be a number of folds >= 2, got {self.cv}"
                )
            self._source = self._held_out(X, labels, fit_params)
        else:
            # A wrong prior is said here, not at the first prediction.
            self._target(None, np.empty(0))
        return self

    def estimate_prior(self, X: Any) -> PriorEstimate:
        """The class mix of samples without labels, with its intervals and the test for no shift.

        Args:
            X: (samples, features), drawn together from the mix in question.

        Raises:
            ValueError: when the classifier was fitted without `target_prior="estimate"`.
        """
        return self._estimate(self._logits(X))

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self, "estimator_")
        return log_probabilities(self.estimator_, plain_array(X))

    def _target(self, target_prior: TargetPrior | None, logits: Array) -> Prior | None:
        wanted = self.target_prior if target_prior is None else target_prior
        if isinstance(wanted, str) and wanted == "estimate":
            return self._estimate(logits).prior
        return super()._target(wanted, logits)

    def _estimate(self, logits: Array) -> PriorEstimate:
        if self._source is None:
            raise InputError(
                "target_prior of PriorAdjustedClassifier may be 'estimate' only where fit had "
                f"target_prior='estimate', got {self.target_prior!r} there"
            )
        held_out, labels = self._source
        return estimate_prior(
            held_out,
            labels,
            _floored(logits),
            self.expressed_prior_,
            training_prior=self.prior_,
        )

    def _estimates(self) -> bool:
        return isinstance(self.target_prior, str) and self.target_prior == "estimate"

    def _labels(self, y: Any) -> Array:
        if y is None:  # as scikit-learn says it
            raise InputError(
                "PriorAdjustedClassifier requires y to be passed, but the target y is None"
            )
        check_classification_targets(plain_array(y))
        labels: Array = column_or_1d(plain_array(y), warn=True)
        return labels

    def _note_priors(self, target: Array, weight: Array | None) -> None:
        """Notes the mix of the training set, and the one that the estimator expresses."""
        counts = np.bincount(target, weights=weight, minlength=len(self.classes_))
        final = final_estimator(self.estimator_)
        source: ClassPrior | None = getattr(final, "prior_", None)
        held_out = isinstance(self.estimator, FrozenEstimator)  # so y is not what it learned from
        if source is None and counts.all() and not held_out:
            source = ClassPrior(counts)
        name = "expressed_prior of PriorAdjustedClassifier"
        if self.expressed_prior is not None:
            uniform = ClassPrior(np.ones(len(counts)))
            given = read_target_prior(self.expressed_prior, self.classes_, source or uniform, name)
            self.prior_ = source or ClassPrior(given)
            self.expressed_prior_ = given.numpy()
        elif source is None and held_out:
            raise InputError(
                f"{name} must be given for a frozen estimator that has neither prior_ nor "
                "expressed_prior_, such as the class counts that it was trained on, got None"
            )
        elif source is None:
            missing = self.classes_[counts == 0]
            raise InputError(
                f"{name} must be given where a class of the estimator has no sample in y, or none "
                f"with a weight, got None and {len(missing)} such classes, "
                f"first {missing.tolist()[0]!r}"
            )
        else:
            self.prior_ = source
            share = source.probabilities.numpy()
            even = weight is None or bool((weight == weight[0]).all())
            expressed = expressed_mix(final, self.classes_, share, even)
            if expressed is None:
                raise InputError(
                    f"{name} must be given where {type(final).__name__} holds classifiers with "
                    "class weights or priors of their own, or balances samples that have weights, "
                    "got None"
                )
            self.expressed_prior_ = expressed

    def _held_out(self, X: Any, labels: Array, fit_params: dict[str, Any]) -> tuple[Array, Array]:
        """Logits of samples that their model was not trained on, and their class indices.

        A class with one sample stays in every training part, and is never held out.
        """
        target = encode(labels, self.classes_, "PriorAdjustedClassifier.fit")
        if isinstance(self.estimator, FrozenEstimator):
            return _floored(self._logits(X)), target
        count = np.bincount(target)
        if count.max() < 2:
            raise InputError(
                "y of PriorAdjustedClassifier must have 2 samples or more of a class to estimate "
                "from, got 1 of each"
            )
        shared, alone = np.flatnonzero(count[target] > 1), np.flatnonzero(count[target] == 1)
        folds = StratifiedKFold(
            min(self.cv, int(count.max())), shuffle=True, random_state=self.random_state
        )
        logits = np.empty((len(target), len(self.classes_)))
        with warnings.catch_warnings():
            # A class of fewer samples than folds is held out in some of them only: as it should.
            warnings.filterwarnings("ignore", message="The least populated class")
            parts = list(folds.split(shared, target[shared]))
        for kept, held in parts:
            train, test = np.concatenate([shared[kept], alone]), shared[held]
            params = {name: value[train] for name, value in fit_params.items()}
            model = clone(self.estimator).fit(_safe_indexing(X, train), labels[train], **params)
            logits[test] = log_probabilities(model, _safe_indexing(X, test))
        return _floored(logits[shared]), target[shared]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def _floored(logits: Array) -> Array:
    floored: Array = np.maximum(logits, logits.max(axis=1, keepdims=True) - FLOOR)
    return floored
