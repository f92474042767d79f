"""Base class of estimators that wrap any classifier and know which prior it expresses."""

from typing import Any

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.sklearn.held_out import final_weight
from longtail.sklearn.predictions import (
    Array,
    PriorClassifier,
    TargetPrior,
    encode,
    plain_array,
    read_target_prior,
)
from longtail.sklearn.wrapped import expressed_prior, is_frozen, layers, log_probabilities

ESTIMATOR_CONSTRAINT = [
    HasMethods(["fit", "predict_proba"]),
    HasMethods(["fit", "decision_function"]),
]


class WrappedClassifier(MetaEstimatorMixin, PriorClassifier):  # type: ignore[misc]
    """Any scikit-learn classifier, with its training prior and the one that it expresses; abstract.

    A subclass has the parameters `estimator`, `expressed_prior`, `cv` and `random_state`.
    """

    estimator: Any
    expressed_prior: TargetPrior | None
    cv: Any
    random_state: int | np.random.RandomState | None

    def _fit(self, X: Any, labels: Array, fit_params: dict[str, Any]) -> None:
        """Fits a clone of the estimator and determines which prior it expresses."""
        self.estimator_ = clone(self.estimator).fit(X, labels, **fit_params)
        self.classes_ = self.estimator_.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        target = encode(labels, self.classes_, f"{type(self).__name__}.fit")
        weight = final_weight(self.estimator_, fit_params)
        self._note_priors(target, weight)

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

    def _labels(self, y: Any) -> Array:
        if y is None:  # in the words of scikit-learn
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        check_classification_targets(plain_array(y))
        labels: Array = column_or_1d(plain_array(y), warn=True)
        return labels

    def _note_priors(self, target: Array, weight: Array | None) -> None:
        """Sets `prior_` and `expressed_prior_`."""
        counts = np.bincount(target, weights=weight, minlength=len(self.classes_))
        final = layers(self.estimator_)[-1]
        source = ClassPrior(counts) if counts.all() and not is_frozen(self.estimator_) else None
        source = source or getattr(final, "prior_", None)
        name = f"expressed_prior of {type(self).__name__}"
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
                f"{name} must be given for {type(final).__name__}, which balances or "
                "calibrates weighted samples, draws samples by class, sets class weights of its "
                "own (scale_pos_weight), estimates its prior, or contains a classifier or sampler "
                "with class weights or a prior of its own, got None"
            )
        self.prior_, self.expressed_prior_ = source, found

    def _why_required(self, counts: Array) -> str:
        if is_frozen(self.estimator_):
            return (
                "must be given for a frozen estimator that has neither prior_ nor "
                "expressed_prior_: the class counts of its training set, for instance"
            )
        missing = self.classes_[counts == 0].tolist()
        return (
            f"must be given if a class has no sample with a weight above 0 in y: {len(missing)} "
            f"such classes, first {missing[0]!r}"
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags
