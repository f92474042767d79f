"""A classifier of embeddings and feature tables whose classes differ much in size."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from longtail.errors import InputError
from longtail.losses import ClassificationLoss, LogitAdjustedLoss
from longtail.prior import ClassPrior
from longtail.shift import resolve_prior
from longtail.sklearn.contrast import ContrastNetwork, train_contrast
from longtail.sklearn.linear import Features, Linear, as_torch, fit_linear, torch_dtype
from longtail.sklearn.methods import NETWORKS, check_method, create_loss
from longtail.sklearn.mixture import Mixture, MixtureHead
from longtail.sklearn.predictions import Array, PriorClassifier, encode, plain_array
from longtail.sklearn.stream import Stream

Head = Linear | MixtureHead | ContrastNetwork


def _is_linear(estimator: Any) -> bool:
    return estimator.method not in NETWORKS


class LongTailClassifier(PriorClassifier):
    """Classifier of embeddings and feature tables whose classes differ much in size.

    A linear head under one of the package's losses, trained on the whole set at once by L-BFGS, or
    on a stream (`partial_fit`) by Adagrad; `gml` adds the class scores of stored samples, `bcl`
    trains a small network. Predictions express the prior that the loss makes them express (the
    uniform one for all but `ce` and `focal`) or the `target_prior` that a prediction is asked for.

    Args:
        method: `logit_adjust`, `lade`, `ce` or any other classification loss of `longtail.losses`
            by its name, or one of your own by its import path; `gml`; `bcl`.
        C: above 0, inverse strength of the L2 penalty, as in scikit-learn's `LogisticRegression`
            on features that are scaled, all by one factor, to a total variance of 1. So the
            default suits embeddings of any backbone; scale the columns of a table first.
        method_params: settings of the loss (`{"tau": 0.5}`), of `gml` (see `Mixture`) or of `bcl`
            (see `ContrastNetwork` and `train_contrast`).
        max_iter: iterations of L-BFGS at most.
        tol: L-BFGS ends where no entry of the scaled gradient is above it: about the root of the
            nats that are still to gain.
        batch_size: samples of a step of `partial_fit`.
        learning_rate: of the first step of `partial_fit`; each weight has its own, by Adagrad.
        warm_start: whether `fit` starts from the head that an earlier `fit` found.
        random_state: orders the samples of `partial_fit` and `bcl`, chooses the keys of `gml`; the
            other methods draw nothing.

    Attributes:
        classes_: (num_classes,), labels.
        class_counts_: (num_classes,), training samples of each class, weights counted.
        prior_: the ClassPrior of those counts.
        expressed_prior_: (num_classes,), the prior that predictions express unless told otherwise.
        coef_: (num_classes, features), of a linear method.
        intercept_: (num_classes,), of a linear method.
        n_iter_: iterations done; steps after `partial_fit`.
        n_features_in_: number of features.
        feature_names_in_: names of the features, where they came with names.

    Example:
        >>> x = [[0.0], [0.2], [0.1], [0.3], [1.0], [0.9]]
        >>> y = ["cat", "cat", "cat", "cat", "lynx", "lynx"]
        >>> model = LongTailClassifier("logit_adjust").fit(x, y)
        >>> model.predict([[0.1], [0.9]]).tolist()
        ['cat', 'lynx']
        >>> model.predict_proba([[0.5]], target_prior={"cat": 0.0001, "lynx": 0.9999}).round(2)
        array([[0., 1.]])
    """

    class_counts_: Array
    _head: Head
    _stream: Stream | None
    _dtype: Any

    def __init__(
        self,
        method: str = "logit_adjust",
        *,
        C: float = 5.0,
        method_params: Mapping[str, Any] | None = None,
        max_iter: int = 100,
        tol: float = 0.005,
        batch_size: int = 256,
        learning_rate: float = 0.3,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method = method
        self.C = C
        self.method_params = method_params
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike | Tensor, sample_weight: ArrayLike | None = None) -> Self:
        """Trains on a whole set.

        Args:
            X: (samples, features), an array, tensor, pandas DataFrame or scipy sparse matrix
                (dense only for `gml` and `bcl`).
            y: (samples,), class labels.
            sample_weight: (samples,), 0 or more; 2 is the same as the sample twice, also in the
                class counts. LADE's regulariser, the keys of `gml` and the contrast of `bcl` count
                every sample once.

        Raises:
            ValueError: when a setting or an input is wrong.
        """
        self._check_settings()
        x, labels, weight = self._read(X, y, sample_weight, reset=True)
        classes, target = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"y of LongTailClassifier must have 2 classes or more, got {len(classes)} class"
            )
        start = self._start(classes, x.shape[1])
        self.classes_ = classes
        self.class_counts_ = np.bincount(target, weights=weight)
        self.prior_ = ClassPrior(self.class_counts_)
        self._dtype, self._stream = x.dtype, None
        features, index = as_torch(x), torch.from_numpy(target)
        self._train(features, index, torch.from_numpy(weight).to(torch_dtype(x)), start)
        return self

    @available_if(_is_linear)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | Tensor,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Goes once over one part of a stream; a linear method only.

        The prior is that of all parts so far; a class without a sample counts as one sample.

        Args:
            X: (samples, features), as for `fit`; the first part sets centre and scale.
            y: (samples,), class labels.
            classes: (num_classes,), all labels of the stream; needed in the first call.
            sample_weight: (samples,), 0 or more.

        Raises:
            ValueError: when a setting or an input is wrong, or a label is none of the classes.
        """
        self._check_settings()
        first = _check_partial_fit_first_call(self, classes)
        try:
            x, labels, weight = self._read(X, y, sample_weight, reset=first)
            target = encode(labels, self.classes_, "LongTailClassifier.partial_fit")
        except Exception:
            if first:  # nothing was learned: the next call is the first
                del self.classes_
            raise
        if first:
            self.class_counts_ = np.zeros(len(self.classes_))
            self._dtype, self._stream = x.dtype, None
        self.class_counts_ = self.class_counts_ + np.bincount(
            target, weights=weight, minlength=len(self.classes_)
        )
        seen = self.class_counts_[self.class_counts_ > 0]
        unseen = min(1, seen.min(initial=1))  # as rare as the rarest, until it comes
        self.prior_ = ClassPrior(np.where(self.class_counts_ > 0, self.class_counts_, unseen))
        loss = self._loss()
        if len(target):
            self._pass(x, torch.from_numpy(target), torch.from_numpy(weight), loss)
        return self

    def _pass(self, x: Array, target: Tensor, weight: Tensor, loss: ClassificationLoss) -> None:
        """One pass over a part of a stream, in mini-batches."""
        features, weight = as_torch(x), weight.to(torch_dtype(x))
        if self._stream is None:
            self._stream = Stream(
                features,
                weight,
                len(self.classes_),
                learning_rate=self.learning_rate,
                inverse_penalty=self.C,
                start=getattr(self, "_head", None),
            )
        seen = float(self.class_counts_.sum())
        order = check_random_state(self.random_state).permutation(len(target))
        for rows in np.array_split(order, range(self.batch_size, len(order), self.batch_size)):
            self._stream.step(features[rows], target[rows], weight[rows], loss, seen)
        self._keep(self._stream.linear(), loss.expresses, self._stream.steps)

    def _train(self, x: Features, target: Tensor, weight: Tensor, start: Linear | None) -> None:
        settings = dict(self.method_params or {})
        if self.method == "bcl":
            network = train_contrast(x, target, weight, self.prior_, self._seed(), **settings)
            self._keep(network, "uniform", network.epochs)
            return
        mixture = offset = None
        if self.method == "gml":
            mixture = Mixture(x, target, self.prior_, self._seed(), **settings)
            offset = mixture.scores_without_own(x)
        loss = LogitAdjustedLoss(self.prior_) if mixture else self._loss()
        head, steps = fit_linear(
            x,
            target,
            weight,
            loss,
            self.prior_,
            inverse_penalty=self.C,
            max_iter=self.max_iter,
            tol=self.tol,
            offset=offset,
            start=start,
        )
        if steps >= self.max_iter:
            warnings.warn(
                f"LongTailClassifier stopped after max_iter = {self.max_iter} iterations before "
                f"its gradient fell below tol = {self.tol:g}; scale the features or allow more",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._keep(MixtureHead(mixture, head) if mixture else head, loss.expresses, steps)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _keep(self, head: Head, expresses: str | list[float], steps: int) -> None:
        self._head = head
        self.n_iter_ = max(steps, 1)
        for name in ("coef_", "intercept_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if isinstance(head, Linear):
            self.coef_, self.intercept_ = head.weight.numpy(), head.bias.numpy()
        self.expressed_prior_ = resolve_prior(expresses, self.prior_, len(self.classes_)).numpy()

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self, "_head")
        x = validate_data(
            self,
            plain_array(X),
            reset=False,
            dtype=self._dtype,
            order="C",
            accept_sparse="csr" if _is_linear(self) else False,
        )
        with torch.no_grad():
            logits: Array = self._head.logits(as_torch(x)).numpy()
        return logits

    def _start(self, classes: Array, num_features: int) -> Linear | None:
        """The head of an earlier fit, where one is wanted and it fits this one's classes."""
        if not self.warm_start or not hasattr(self, "_head"):
            return None
        head = self._head.linear if isinstance(self._head, MixtureHead) else self._head
        if not isinstance(head, Linear) or head.weight.shape[1] != num_features:
            return None
        return head if np.array_equal(classes, self.classes_) else None

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[Array, Array, Array]:
        """Checked features, labels and weights of the samples that have a weight."""
        x, labels = validate_data(
            self,
            plain_array(X),
            plain_array(y),
            reset=reset,
            dtype=[np.float64, np.float32] if reset else self._dtype,
            order="C",
            accept_sparse="csr" if _is_linear(self) else False,
        )
        check_classification_targets(labels)
        weight = _check_sample_weight(plain_array(sample_weight), x, dtype=np.float64)
        if (weight < 0).any():
            raise InputError(
                f"sample_weight of LongTailClassifier must be >= 0, got {weight.min():g}"
            )
        keep = weight > 0
        return (x, labels, weight) if keep.all() else (x[keep], labels[keep], weight[keep])

    def _loss(self) -> ClassificationLoss:
        return create_loss(self.method, self.prior_, self.method_params or {})

    def _check_settings(self) -> None:
        for name in ("C", "max_iter", "tol", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"{name} of LongTailClassifier must be > 0, got {value}")
        check_method(self.method, self.method_params or {})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = _is_linear(self)
        return tags
