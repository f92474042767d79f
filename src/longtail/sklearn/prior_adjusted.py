"""Any scikit-learn classifier under another class prior, given or estimated from the samples."""

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import indexable
from torch import Tensor

from longtail.errors import InputError
from longtail.shift import PriorEstimate, estimate_prior
from longtail.shift.priors import Prior
from longtail.sklearn.held_out import checked_weight, predict_held_out, route
from longtail.sklearn.meta import ESTIMATOR_CONSTRAINT, WrappedClassifier
from longtail.sklearn.predictions import (
    PRIOR_CONSTRAINT,
    Array,
    TargetPrior,
    plain_array,
)
from longtail.sklearn.wrapped import floored


class PriorAdjustedClassifier(WrappedClassifier):
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
            except `estimate`. Default: the prior under which a classifier of this package
            predicts, such as `expressed_prior_` of a LongTailClassifier; the prior of a
            naive Bayes or discriminant classifier, uniform for a balanced ensemble of
            imbalanced-learn and for `ComplementNB`; else the class frequencies of the `y` passed to
            `fit`, times the estimator's `class_weight` (with `balanced`: uniform). Required for a
            frozen classifier, a pipeline with a sampler, class weights of gradient boosting such as
            `scale_pos_weight`, an estimator that contains others that weight or sample their
            classes, `SVC(probability=True)` with sample weights, and a classifier of this package
            with `target_prior="estimate"`.
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
        "estimator": ESTIMATOR_CONSTRAINT,
        "target_prior": PRIOR_CONSTRAINT,
        "expressed_prior": PRIOR_CONSTRAINT,
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

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
            self._source = predict_held_out(self, X, labels, routed)
        else:
            # Reports a wrong prior here rather than at the first prediction.
            self._target(None, np.empty(0))
        return self

    def prior_of_predictions(self) -> Array | None:
        """The class prior (num_classes,) under which the fitted classifier predicts by default.

        Returns: None with `target_prior="estimate"`.
        """
        return None if self._estimates() else super().prior_of_predictions()

    def estimate_prior(self, X: Any) -> PriorEstimate:
        """Estimates the class prior of unlabelled samples, with intervals and a test for shift.

        Args:
            X: (samples, features), drawn together from one class prior.

        Raises:
            ValueError: if the classifier was fitted without `target_prior="estimate"`.
        """
        return self._estimate(self._logits(X))

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
