"""A class prior chosen by cross-validation, for any metric and any number of classes."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer, get_scorer_names, make_scorer, recall_score
from sklearn.utils import check_random_state, indexable
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import _check_method_params, check_is_fitted
from torch import Tensor

from longtail.errors import InputError
from longtail.sklearn.held_out import checked_weight, predict_held_out, route
from longtail.sklearn.meta import ESTIMATOR_CONSTRAINT, WrappedClassifier
from longtail.sklearn.predictions import (
    PRIOR_CONSTRAINT,
    Array,
    TargetPrior,
    plain_array,
)

# Candidate powers of the prior: 0 is the training set's prior, 1 the uniform one.
POWERS = np.linspace(-0.5, 1.5, 21).round(1)
# Resamples of the held-out samples, whose best powers are averaged.
RESAMPLES = 20
# Candidate offsets of one class, in nats, the smallest change first.
OFFSETS = np.array(sorted(np.linspace(-3, 3, 25), key=abs))
ROUNDS = 5


# Score of some of the held-out samples under a log prior.
Score = Callable[..., float]


class TunedPriorClassifierCV(WrappedClassifier):
    """Any classifier under the class prior that gives the best score in cross-validation.

    The counterpart of scikit-learn's `TunedThresholdClassifierCV` for any number of classes. The
    prior is that of the training set to the power 1 - `best_power_`, normalised: power 0 keeps it,
    power 1 makes it uniform. With `class_offsets`, each class's log prior is then changed
    individually, as long as the score rises. All held-out samples are scored together, so that a
    class with few samples counts once, not once per fold. With few rare samples the score is a
    jagged function of the power, and its highest point is mostly chance. The power is therefore the
    mean of the best powers over resamples of the held-out samples, drawn class by class with
    replacement.

    Args:
        estimator: the classifier, which may be a Pipeline or a search; in `FrozenEstimator`, a
            model that is already trained, whose prior is then chosen on the samples passed to
            `fit`.
        scoring: the metric to maximise: a scikit-learn scorer, by name or as a callable;
            `geometric_mean`, of the recalls of all classes; or costs (num_classes, num_classes),
            entry (i, j) of predicting class j for a sample of class i, whose mean is minimised.
            A scorer of probabilities, by name, is given those among the classes that have held-out
            samples: a class with one sample has none.
        class_offsets: whether to choose an offset for each class as well. One parameter per class
            can overfit, so the rarest class should have tens of samples.
        powers: (powers,), the powers to choose from; default: 21 from -0.5 to 1.5.
        expressed_prior: as for `PriorAdjustedClassifier`.
        cv: number of folds, a scikit-learn splitter, or (train, test) indices.
        n_jobs: number of folds that are fitted in parallel, as in scikit-learn.
        random_state: shuffles the samples before they are divided into a number of folds, and
            draws the resamples.

    Attributes:
        estimator_: the classifier, fitted to the whole training set.
        classes_: (num_classes,), labels.
        best_power_: the chosen power: of `powers`, the one nearest to the mean over resamples.
        class_offsets_: (num_classes,), nats added to the log prior of each class; 0 without
            `class_offsets`.
        best_score_: the score of the held-out samples under the chosen prior.
        cv_results_: `power` and `score` (powers,), score of the held-out samples by power.
        target_prior_: (num_classes,), the chosen prior, under which predictions are made by
            default, including probabilities; pass `target_prior="source"` for calibrated ones.
        prior_: the ClassPrior that `source` refers to, as for `PriorAdjustedClassifier`.
        expressed_prior_: (num_classes,), the prior that the estimator's probabilities express.
        n_features_in_: number of features, if the estimator has it.
        feature_names_in_: names of the features, if the estimator has them.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> x, y = load_iris(return_X_y=True)
        >>> model = TunedPriorClassifierCV(GaussianNB(), scoring="f1_macro", random_state=0)
        >>> model.fit(x[:120], y[:120]).target_prior_.round(2).shape
        (3,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": ESTIMATOR_CONSTRAINT,
        "scoring": [
            StrOptions({*get_scorer_names(), "geometric_mean"}),
            callable,
            "array-like",
        ],
        "class_offsets": ["boolean"],
        "powers": ["array-like", None],
        "expressed_prior": PRIOR_CONSTRAINT,
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        scoring: str | Callable[..., float] | ArrayLike = "f1_macro",
        class_offsets: bool = False,
        powers: ArrayLike | None = None,
        expressed_prior: TargetPrior | None = None,
        cv: Any = 5,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.scoring = scoring
        self.class_offsets = class_offsets
        self.powers = powers
        self.expressed_prior = expressed_prior
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: ArrayLike | Tensor,
        sample_weight: ArrayLike | None = None,
        **params: Any,
    ) -> Self:
        """Chooses the prior by cross-validation and fits the estimator to the whole training set.

        Args:
            X: (samples, features), any input of the estimator, or a tensor.
            y: (samples,), class labels.
            sample_weight: (samples,), as for `PriorAdjustedClassifier`.
            **params: for the estimator's `fit`, and `groups` for the splitter; with scikit-learn's
                metadata routing, what each of them and the scorer request.

        Raises:
            ValueError: if a parameter, an input or a prior is invalid.
        """
        self._validate_params()
        powers = _numbers(POWERS if self.powers is None else self.powers)
        if powers is None or powers.ndim != 1 or not len(powers):
            raise InputError(
                f"powers of TunedPriorClassifierCV must be finite numbers (powers,), got "
                f"{self.powers!r}"
            )
        X, labels = indexable(plain_array(X), self._labels(y))
        routed = route(self, checked_weight(self, sample_weight, labels), params)
        self._fit(X, labels, routed.estimator.fit)
        held_out = predict_held_out(self, X, labels, routed, self.n_jobs)
        scorer = _scorer(self.scoring, self.classes_)
        logits = held_out.logits - np.log(self.expressed_prior_)
        held = np.unique(held_out.target)
        # Scorers by name infer the classes from the samples; a callable may name them itself.
        scored = held if isinstance(self.scoring, str) else np.arange(len(self.classes_))
        under = _Predictions(self.classes_, scored)

        def score(log_prior: Array, rows: Array | slice = slice(None)) -> float:
            index = held_out.index[rows]
            given = _check_method_params(X, routed.scorer.score, indices=index)
            return float(scorer(under, logits[rows] + log_prior, labels[index], **given))

        self._choose_power(score, powers, held_out.target)
        self._choose_offsets(score)
        return self

    def _choose_power(self, score: Score, powers: Array, target: Array) -> None:
        """The power nearest to the mean of the best powers over resamples.

        Args:
            score: score of some of the held-out samples under a log prior.
            powers: (powers,).
            target: (held_out,), class index of each held-out sample.
        """
        log_source = self.prior_.log_prior.numpy()
        scores = np.array([score((1 - power) * log_source) for power in powers])
        self.cv_results_ = {"power": powers, "score": scores}
        random = check_random_state(self.random_state)
        classes = [np.flatnonzero(target == c) for c in np.unique(target)]
        best = []
        for _ in range(RESAMPLES if len(powers) > 1 else 0):
            rows = np.concatenate([random.choice(mine, len(mine)) for mine in classes])
            drawn = np.array([score((1 - power) * log_source, rows) for power in powers])
            if np.isfinite(drawn).any():
                best.append(powers[middle_of_best(drawn)])
        chosen = middle_of_best(scores)
        if best:
            chosen = int(np.abs(powers - np.mean(best)).argmin())
        self.best_power_, self.best_score_ = float(powers[chosen]), float(scores[chosen])

    def _choose_offsets(self, score: Score) -> None:
        """Offsets of the log prior, one class at a time, and the prior that results."""
        log_source = self.prior_.log_prior.numpy()
        log_prior = (1 - self.best_power_) * log_source
        offsets = np.zeros(len(log_prior))
        for _ in range(ROUNDS if self.class_offsets else 0):
            before = self.best_score_
            for c in np.argsort(log_source):  # the rarest class first
                for change in OFFSETS:
                    tried = offsets.copy()
                    tried[c] = change
                    found = score(log_prior + tried)
                    if found > self.best_score_:
                        offsets, self.best_score_ = tried, found
            if self.best_score_ == before:
                break
        self.class_offsets_ = offsets
        self.target_prior_ = softmax(log_prior + offsets)

    def get_metadata_routing(self) -> MetadataRouter:
        """What the estimator's `fit`, the splitter and the scorer request, for metadata routing."""
        mapping = MethodMapping().add(caller="fit", callee="score")
        scorer = _scorer(self.scoring, None)
        return super().get_metadata_routing().add(scorer=scorer, method_mapping=mapping)

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self, "target_prior_")
        return super()._logits(X)

    def _target(self, target_prior: TargetPrior | None, logits: Array) -> Any:
        return super()._target(self.target_prior_ if target_prior is None else target_prior, logits)


def middle_of_best(scores: Array) -> int:
    """Index of the best score; for equal neighbours, the middle of the first such run."""
    first = int(np.nanargmax(scores))
    run = first
    while run + 1 < len(scores) and scores[run + 1] == scores[first]:
        run += 1
    return (first + run) // 2


class _Predictions(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose X are logits, to be called by scorers.

    Args:
        classes: (num_classes,), labels.
        scored: (scored,), index of the classes among which probabilities and decisions are given.
    """

    def __init__(self, classes: Array, scored: Array) -> None:
        self.classes = classes
        self.scored = scored
        self.classes_ = classes[scored] if len(scored) > 1 else classes

    def predict(self, X: Array) -> Array:
        chosen: Array = self.classes[X.argmax(axis=1)]
        return chosen

    def predict_proba(self, X: Array) -> Array:
        probability: Array = softmax(self._among_scored(X), axis=1)
        return probability

    def decision_function(self, X: Array) -> Array:
        logits = self._among_scored(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _among_scored(self, X: Array) -> Array:
        if len(self.scored) < 2:
            raise InputError(
                "scoring of TunedPriorClassifierCV by probabilities must have held-out samples of "
                f"2 classes or more, got those of {self.classes[self.scored].tolist()}"
            )
        logits: Array = X[:, self.scored]
        return logits


def _numbers(values: Any) -> Array | None:
    """Finite numbers as an array, None if they are not."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None


def _scorer(scoring: Any, classes: Array | None) -> Any:
    """A scikit-learn scorer; costs are checked if the classes are given."""
    if isinstance(scoring, str) and scoring == "geometric_mean":
        return make_scorer(geometric_mean)
    if isinstance(scoring, str) or callable(scoring):
        return get_scorer(scoring)
    costs = _numbers(scoring)
    if costs is None:
        raise InputError(
            "scoring of TunedPriorClassifierCV must be one scorer or finite costs "
            f"(num_classes, num_classes), got {scoring!r}"
        )
    if classes is not None and costs.shape != (len(classes), len(classes)):
        raise InputError(
            f"scoring of TunedPriorClassifierCV, as costs, must be (num_classes, num_classes) = "
            f"{(len(classes), len(classes))}, got shape {costs.shape}"
        )

    def mean_cost(truth: Array, predicted: Array, sample_weight: Array | None = None) -> float:
        assert classes is not None
        i, j = (np.searchsorted(classes, labels) for labels in (truth, predicted))
        return float(np.average(costs[i, j], weights=sample_weight))

    return make_scorer(mean_cost, greater_is_better=False)


def geometric_mean(truth: Array, predicted: Array, sample_weight: Array | None = None) -> float:
    """Geometric mean of the recalls of the classes of `truth`, in [0, 1]."""
    recalls = recall_score(
        truth, predicted, labels=np.unique(truth), average=None, sample_weight=sample_weight
    )
    return float(np.prod(recalls) ** (1 / len(recalls)))
