"""Any scikit-learn classifier under another class prior, given or estimated from the samples."""

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags, indexable
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.shift import PriorEstimate, estimate_prior
from longtail.shift.priors import Prior
from longtail.sklearn.held_out import checked_weight, final_weight, predict_held_out, route
from longtail.sklearn.predictions import (
    PRIOR_CONSTRAINT,
    Array,
    PriorClassifier,
    TargetPrior,
    encode,
    plain_array,
    read_target_prior,
)
from longtail.sklearn.wrapped import expressed_prior, floored, layers, log_probabilities


class PriorAdjustedClassifier(MetaEstimatorMixin, PriorClassifier):  # type: ignore[misc]
    """Any scikit-learn classifier, predicting under a class prior that it was not trained on.

    Its log probabilities are adjusted from the prior that they express to the target. Without
    `predict_proba`, its decision function is used, which should then give log-likelihoods up to a
    constant: calibrate margins first. `fit` trains a clone; pass a model that is already trained in
    scikit-learn's `FrozenEstimator`, and `fit` then takes held-out samples.

    Args:
        estimator: the classifier, which may be a Pipeline or a search.
        target_prior: the prior to predict under by default: `uniform`, `source`, probabilities in
            the order of `classes_` or by class label, or `estimate`: the class prior of the
            samples that are predicted together, estimated from them alone
            (`longtail.shift.estimate_prior`). None: the prior that the estimator expresses.
        expressed_prior: the prior that the estimator's probabilities express, in the same forms
            except `estimate`. Default: `expressed_prior_` of a LongTailClassifier, the prior of a
            naive Bayes or discriminant classifier, uniform for a balanced ensemble of
            imbalanced-learn and for `ComplementNB`; else the class frequencies of the `y` passed to
            `fit`, times the estimator's `class_weight` (with `balanced`: uniform). Required for a
            frozen estimator, a pipeline with a sampler, class weights of gradient boosting such as
            `scale_pos_weight`, and an estimator that contains others that weight or sample their
            classes.
        cv: number of folds of the held-out predictions that `estimate` needs, a scikit-learn
            splitter, or (train, test) indices.
        random_state: shuffles the samples before they are divided into a number of folds.

    Attributes:
        estimator_: the fitted classifier.
        classes_: (num_classes,), labels.
        prior_: the ClassPrior that `source` refers to: of the training set; for a frozen estimator,
            or if `y` lacks a class, `expressed_prior`.
        expressed_prior_: (num_classes,), the prior that the estimator's probabilities express.
        n_features_in_: number of features, if the estimator has it.
        feature_names_in_: names of the features, if the estimator has them.

    Examples:
        >>> from sklearn.linear_model import LogisticRegression
        >>> x, y = [[0.0], [0.1], [0.2], [0.4], [0.5]], ["no", "no", "no", "no", "yes"]
        >>> model = PriorAdjustedClassifier(LogisticRegression(), target_prior="uniform").fit(x, y)
        >>> model.predict([[0.45]]).tolist(), model.predict([[0.45]], "source").tolist()
        (['yes'], ['no'])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [
            HasMethods(["fit", "predict_proba"]),
            HasMethods(["fit", "decision_function"]),
        ],
        "target_prior": PRIOR_CONSTRAINT,
        "expressed_prior": PRIOR_CONSTRAINT,
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

    _owner = "PriorAdjustedClassifier"  # the name in messages

    def __init__(
        self,
        estimator: Any,
        target_prior: TargetPrior | None = None,
        *,
        expressed_prior: TargetPrior | None = None,
        cv: Any = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.target_prior = target_prior
        self.expressed_prior = expressed_prior
        self.cv = cv
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: ArrayLike | Tensor,
        sample_weight: ArrayLike | None = None,
        **params: Any,
    ) -> Self:
        """Fits a clone of the estimator and determines which prior it expresses.

        Args:
            X: (samples, features), any input of the estimator, or a tensor.
            y: (samples,), class labels.
            sample_weight: (samples,), for an estimator that takes it; weights that reach it count
                in the prior.
            **params: for the estimator's `fit`, and `groups` for the splitter; with scikit-learn's
                metadata routing, what each of them requests.

        Raises:
            ValueError: if a parameter, an input or a prior is invalid.
        """
        self._validate_params()
        X, labels = indexable(plain_array(X), self._labels(y))
        routed = route(self, checked_weight(self, sample_weight, labels), params)
        self._fit(X, labels, routed.estimator.fit)
        self._source = None
        if self._estimates():
            self._source = predict_held_out(
                self.estimator,
                X,
                labels,
                self.classes_,
                routed,
                self.cv,
                self.random_state,
            )
        else:
            # Reports a wrong prior here rather than at the first prediction.
            self._target(None, np.empty(0))
        return self

    def _fit(self, X: Any, labels: Array, fit_params: dict[str, Any]) -> None:
        """Fits a clone of the estimator and determines which prior it expresses."""
        self.estimator_ = clone(self.estimator).fit(X, labels, **fit_params)
        self.classes_ = self.estimator_.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        target = encode(labels, self.classes_, f"{self._owner}.fit")
        weight = final_weight(self.estimator_, fit_params)
        self._note_priors(target, weight)

    def estimate_prior(self, X: Any) -> PriorEstimate:
        """Estimates the class prior of unlabelled samples, with intervals and a test for shift.

        Args:
            X: (samples, features), drawn together from one class prior.

        Raises:
            ValueError: if the classifier was fitted without `target_prior="estimate"`.
        """
        return self._estimate(self._logits(X))

    def get_metadata_routing(self) -> MetadataRouter:
        """What the estimator's `fit` and the splitter request, for metadata routing."""
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
            .add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        )

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
                "target_prior of PriorAdjustedClassifier may be 'estimate' only if fit had "
                f"target_prior='estimate', got {self.target_prior!r} there"
            )
        return estimate_prior(
            self._source.logits,
            self._source.target,
            floored(logits),
            self.expressed_prior_,
            training_prior=self.prior_,
        )

    def _estimates(self) -> bool:
        return isinstance(self.target_prior, str) and self.target_prior == "estimate"

    def _labels(self, y: Any) -> Array:
        if y is None:  # in the words of scikit-learn
            raise InputError(f"{self._owner} requires y to be passed, but the target y is None")
        check_classification_targets(plain_array(y))
        labels: Array = column_or_1d(plain_array(y), warn=True)
        return labels

    def _note_priors(self, target: Array, weight: Array | None) -> None:
        """Sets `prior_` and `expressed_prior_`."""
        counts = np.bincount(target, weights=weight, minlength=len(self.classes_))
        final = layers(self.estimator_)[-1]
        source = ClassPrior(counts) if counts.all() and not self._is_frozen() else None
        source = source or getattr(final, "prior_", None)
        name = f"expressed_prior of {self._owner}"
        if self.expressed_prior is not None:
            uniform = ClassPrior(np.ones(len(counts)))
            given = read_target_prior(self.expressed_prior, self.classes_, source or uniform, name)
            self.prior_ = source or ClassPrior(given)
            self.expressed_prior_ = given.numpy()
            return
        if source is None:
            raise InputError(f"{name} {self._why_required(counts)}, got None")
        even = weight is None or bool((weight == weight[0]).all())
        found = expressed_prior(self.estimator_, self.classes_, source.probabilities.numpy(), even)
        if found is None:
            raise InputError(
                f"{name} must be given for {type(final).__name__}, which balances weighted "
                "samples, draws samples by class, sets class weights of its own "
                "(scale_pos_weight), or contains a classifier or sampler with class weights or a "
                "prior of its own, got None"
            )
        self.prior_, self.expressed_prior_ = source, found

    def _why_required(self, counts: Array) -> str:
        if self._is_frozen():
            return (
                "must be given for a frozen estimator that has neither prior_ nor "
                "expressed_prior_: the class counts of its training set, for instance"
            )
        missing = self.classes_[counts == 0].tolist()
        return (
            f"must be given if a class has no sample with a weight above 0 in y: {len(missing)} "
            f"such classes, first {missing[0]!r}"
        )

    def _is_frozen(self) -> bool:
        return isinstance(self.estimator, FrozenEstimator)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags
