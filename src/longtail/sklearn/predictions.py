"""Base class for predictions under any class prior."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from longtail.errors import InputError
from longtail.names import nearest
from longtail.prior import ClassPrior
from longtail.shift import adjust
from longtail.shift.priors import Prior, probabilities

Array = NDArray[Any]
# A word, one probability per class in the order of `classes_`, or probabilities by class label.
TargetPrior = str | Prior | Mapping[Any, float]
# The same, as a constraint for scikit-learn's parameter validation.
PRIOR_CONSTRAINT = [str, Mapping, ClassPrior, "array-like", None]


class PriorClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that predicts under any class prior; abstract.

    A fitted subclass has `classes_`, `prior_` (of the training set) and `expressed_prior_` (the
    one that its logits express), and computes logits.
    """

    classes_: Array
    prior_: ClassPrior
    expressed_prior_: Array

    @abstractmethod
    def _logits(self, X: Any) -> Array:
        """Logits (samples, num_classes) that express `expressed_prior_`."""

    def _target(self, target_prior: TargetPrior | None, logits: Array) -> Prior | None:
        """The prior to predict under; None: the one that the logits express."""
        if target_prior is None:
            return None
        return read_target_prior(
            target_prior,
            self.classes_,
            self.prior_,
            f"target_prior of {type(self).__name__}",
        )

    def prior_of_predictions(self) -> Array | None:
        """The class prior (num_classes,) under which the fitted classifier predicts by default.

        Returns: None if it depends on the samples.
        """
        target = self._target(None, np.empty(0))
        if target is None:
            return self.expressed_prior_
        return probabilities(target, f"target_prior of {type(self).__name__}").numpy()

    def _adjusted(self, X: Any, target_prior: TargetPrior | None) -> Array:
        logits = self._logits(X)
        target = self._target(target_prior, logits)
        return logits if target is None else adjust(logits, self.expressed_prior_, target)

    def decision_function(self, X: Any, target_prior: TargetPrior | None = None) -> Array:
        """Logits under a class prior.

        Args:
            X: (samples, features).
            target_prior: as for `predict_proba`.

        Returns: (samples, num_classes); for two classes (samples,), the second's logit minus the
            first's.
        """
        logits = self._adjusted(X, target_prior)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any, target_prior: TargetPrior | None = None) -> Array:
        """Probability of each class under a class prior.

        Args:
            X: (samples, features).
            target_prior: the class prior of the data that X comes from: `uniform`, `source` (the
                training set's), probabilities in the order of `classes_`, or by class label (a
                dict, a pandas Series). Default: the estimator's own, see its class.

        Returns: (samples, num_classes), rows sum to 1, columns in the order of `classes_`.

        Raises:
            ValueError: if the prior is invalid or does not fit the classes.
        """
        logits = torch.from_numpy(self._adjusted(X, target_prior))
        return logits.softmax(dim=1).numpy()

    def predict_log_proba(self, X: Any, target_prior: TargetPrior | None = None) -> Array:
        """Natural logarithm of the probability of each class under a class prior.

        Args:
            X: (samples, features).
            target_prior: as for `predict_proba`.

        Returns: (samples, num_classes), finite where `predict_proba` underflows to 0.
        """
        logits = torch.from_numpy(self._adjusted(X, target_prior))
        return logits.log_softmax(dim=1).numpy()

    def predict(self, X: Any, target_prior: TargetPrior | None = None) -> Array:
        """The most probable class under a class prior.

        Args:
            X: (samples, features).
            target_prior: as for `predict_proba`.

        Returns: (samples,), class labels.
        """
        chosen = self._adjusted(X, target_prior).argmax(axis=1)
        labels: Array = self.classes_[chosen]
        return labels


def plain_array(values: Any) -> Any:
    """A tensor as an array that scikit-learn's checks can read; anything else unchanged."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def read_target_prior(value: Any, classes: Array, source: ClassPrior, name: str) -> Tensor:
    """Class probabilities from a word, a vector in the order of `classes`, or a mapping by label.

    Args:
        value: see `PriorClassifier.predict_proba`.
        classes: (num_classes,), labels.
        source: the prior that `source` refers to.
        name: the parameter's name in error messages.

    Returns: (num_classes,), float64.

    Raises:
        ValueError: if the word is unknown, a class is missing or unknown, or the values are not
            probabilities.

    Examples:
        >>> labels, source = np.array(["cat", "dog"]), ClassPrior([1, 1])
        >>> read_target_prior({"dog": 0.7, "cat": 0.3}, labels, source, "prior").tolist()
        [0.3, 0.7]
    """
    if isinstance(value, str):
        words = {"uniform": ClassPrior(np.ones(len(classes))), "source": source}
        if value not in words:
            hint = nearest(value, words)
            raise InputError(f"{name} must be one of {sorted(words)}, got {value!r}{hint}")
        return words[value].probabilities
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        value = _by_label(value, classes, name)
    return probabilities(value, name, len(classes))


def _by_label(values: Mapping[Any, float], classes: Array, name: str) -> list[float]:
    labels = classes.tolist()
    missing = [label for label in labels if label not in values]
    unknown = [label for label in values if label not in set(labels)]
    for wrong, rule in ((missing, "name every class"), (unknown, "name known classes only")):
        if wrong:
            found = "missing" if wrong is missing else "unknown"
            raise InputError(f"{name} must {rule}, got {len(wrong)} {found}, first {wrong[0]!r}")
    return [_number(values[label], label, name) for label in labels]


def _number(value: Any, label: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers, got {value!r} for class {label!r}") from None


def encode(y: ArrayLike, classes: Array, name: str) -> Array:
    """Class index of each label.

    Raises:
        ValueError: if a label is not one of the classes.
    """
    labels = np.asarray(y)
    index = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = labels[classes[index] != labels]
    if len(unknown):
        raise InputError(f"y of {name} must contain known classes, got {unknown.tolist()[0]!r}")
    return index
