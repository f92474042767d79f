"""LongTailClassifier: a head on embeddings or feature tables with rare classes."""

import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.prior import ClassPrior
from longtail.probe import Head, Linear, MixtureHead, check_method, fit_head
from longtail.probe.linear import InversePenalty, as_torch, chosen_penalty, torch_dtype
from longtail.probe.methods import NETWORKS, create_loss
from longtail.probe.scaling import Standardize, column_scale
from longtail.shift import expressed_prior
from longtail.sklearn.held_out import checked_weight
from longtail.sklearn.predictions import Array, PriorClassifier, encode, plain_array
from longtail.sklearn.stream import Stream


def _is_linear(estimator: Any) -> bool:
    return estimator.method not in NETWORKS


class LongTailClassifier(PriorClassifier):
    """Classifier for embeddings and feature tables with rare classes.

    A linear head under one of the package's losses, fitted to the whole training set by L-BFGS, or
    to a stream (`partial_fit`) by Adagrad; `gml` adds the class scores of stored samples, `bcl`
    trains a small network (`longtail.probe.fit_head`). Predictions express the class prior that
    the loss leads to (uniform; for `ce` and `focal` that of the training set, for `class_balanced`
    and `ldam` nearly uniform) or the given `target_prior`.

    Args:
        method: `logit_adjust`, `lade`, `ce` or any other classification loss of `longtail.losses`
            by name, or one of your own by its import path; `gml`; `bcl`.
        C: above 0, inverse strength of the L2 penalty on features that are scaled, all by one
            factor, to a total variance of 1, so that one value suits embeddings of any width. On d
            standardised columns it is `C / d` of scikit-learn's `LogisticRegression` (twice that
            for two classes); on other features `C` divided by the sum of their variances. `auto`:
            5 for 256 features or more, as of a network, and 20 for fewer, as of a table.
        standardize: whether columns are divided by their standard deviations. `auto`: if the ranges
            (maximum minus minimum) of two columns differ by more than a factor of 20, as in a table
            with units but not in the features of a network.
        method_params: settings of the loss (`{"tau": 0.5}`), of `gml` (see
            `longtail.probe.Mixture`) or of `bcl` (see `longtail.probe.ContrastNetwork` and
            `longtail.probe.contrast.train_contrast`).
        max_iter: maximum number of iterations of L-BFGS.
        tol: L-BFGS stops when no entry of the preconditioned gradient exceeds it; the loss is then
            within about `tol` squared of its minimum.
        batch_size: number of samples per step of `partial_fit`.
        learning_rate: initial learning rate of `partial_fit`; Adagrad adapts it to each weight.
        warm_start: whether `fit` starts from the head of an earlier `fit`.
        random_state: orders the samples of `partial_fit` and `bcl`, chooses the keys of `gml`; the
            other methods are deterministic.

    Attributes:
        classes_: (num_classes,), labels.
        class_counts_: (num_classes,), training samples of each class, with weights counted.
        prior_: the ClassPrior of those counts.
        expressed_prior_: (num_classes,), the prior that predictions express by default.
        C_: the value of C.
        scale_: (features,), standard deviation of each column if the columns were standardised,
            else None.
        coef_: (num_classes, features), for the original features; linear methods only.
        intercept_: (num_classes,), linear methods only.
        n_iter_: number of iterations; of steps after `partial_fit`.
        n_features_in_: number of features.
        feature_names_in_: names of the features, if X has names.

    Examples:
        >>> x = [[0.0], [0.2], [0.1], [0.3], [1.0], [0.9]]
        >>> y = ["cat", "cat", "cat", "cat", "lynx", "lynx"]
        >>> model = LongTailClassifier("logit_adjust").fit(x, y)
        >>> model.predict([[0.1], [0.9]]).tolist()
        ['cat', 'lynx']
        >>> model.predict_proba([[0.5]], target_prior={"cat": 0.0001, "lynx": 0.9999}).round(2)
        array([[0., 1.]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [str],
        "C": [Interval(Real, 0, None, closed="right"), StrOptions({"auto"})],
        "standardize": ["boolean", StrOptions({"auto"})],
        "method_params": [Mapping, None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }

    class_counts_: Array
    scale_: Array | None
    _head: Head
    _stream: Stream | None
    _dtype: Any

    def __init__(
        self,
        method: str = "logit_adjust",
        *,
        C: InversePenalty = "auto",
        standardize: Standardize = "auto",
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
        self.standardize = standardize
        self.method_params = method_params
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike | Tensor, sample_weight: ArrayLike | None = None) -> Self:
        """Fits the classifier to a training set.

        Args:
            X: (samples, features), an array, tensor, pandas DataFrame or scipy sparse matrix (`gml`
                and `bcl` need dense input).
            y: (samples,), class labels.
            sample_weight: (samples,), 0 or more; a weight of 2 equals the sample twice, also in
                the class counts. LADE's regulariser, the keys of `gml` and the contrastive loss of
                `bcl` count every sample once.

        Raises:
            ValueError: if a parameter or an input is invalid.
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
        self.C_ = chosen_penalty(self.C, x.shape[1])
        fitted = fit_head(
            as_torch(x),
            torch.from_numpy(target),
            self.prior_,
            self.method,
            settings=self.method_params,
            weight=torch.from_numpy(weight).to(torch_dtype(x)),
            inverse_penalty=self.C_,
            standardize=self.standardize,
            max_iter=self.max_iter,
            tol=self.tol,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            start=start,
        )
        if not fitted.converged:
            warnings.warn(
                f"LongTailClassifier stopped after max_iter = {self.max_iter} iterations before "
                f"its gradient fell below tol = {self.tol:g}; scale the features or raise max_iter",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(fitted.head, fitted.expressed_prior, fitted.scale, fitted.iterations)
        return self

    @available_if(_is_linear)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | Tensor,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Makes one pass over one batch of a stream; linear methods only.

        The prior is that of all batches so far; a class without a sample counts as one sample.

        Args:
            X: (samples, features), as for `fit`; the first batch sets mean and scale.
            y: (samples,), class labels.
            classes: (num_classes,), all labels of the stream; needed in the first call.
            sample_weight: (samples,), 0 or more.

        Raises:
            ValueError: if a parameter or an input is invalid, or a label is not one of the classes.
        """
        self._check_settings()
        first = _check_partial_fit_first_call(self, classes)
        try:
            x, labels, weight = self._read(X, y, sample_weight, reset=first)
            target = encode(labels, self.classes_, "LongTailClassifier.partial_fit")
        except Exception:
            if first:  # nothing was learned, so the next call is the first
                del self.classes_
            raise
        if first:
            self.class_counts_ = np.zeros(len(self.classes_))
            self._dtype, self._stream = x.dtype, None
        self.class_counts_ = self.class_counts_ + np.bincount(
            target, weights=weight, minlength=len(self.classes_)
        )
        seen = self.class_counts_[self.class_counts_ > 0]
        unseen = min(1, seen.min(initial=1))  # as rare as the rarest class seen so far
        self.prior_ = ClassPrior(np.where(self.class_counts_ > 0, self.class_counts_, unseen))
        loss = create_loss(self.method, self.prior_, self.method_params or {})
        if len(target):
            self._pass(x, torch.from_numpy(target), torch.from_numpy(weight), loss)
        return self

    def _pass(self, x: Array, target: Tensor, weight: Tensor, loss: ClassificationLoss) -> None:
        """One pass over a batch of a stream, in mini-batches."""
        features, weight = as_torch(x), weight.to(torch_dtype(x))
        if self._stream is None:
            self.C_ = chosen_penalty(self.C, features.shape[1])
            self._stream = Stream(
                features,
                weight,
                len(self.classes_),
                learning_rate=self.learning_rate,
                inverse_penalty=self.C_,
                scale=column_scale(features, weight, self.standardize),
                start=self._linear_head(),
            )
        seen = float(self.class_counts_.sum())
        order = check_random_state(self.random_state).permutation(len(target))
        for rows in np.array_split(order, range(self.batch_size, len(order), self.batch_size)):
            self._stream.step(features[rows], target[rows], weight[rows], loss, seen)
        expressed = expressed_prior(loss.expresses, self.prior_)
        self._keep(self._stream.linear(), expressed, self._stream.scale, self._stream.steps)

    def _keep(self, head: Head, expressed: Tensor, scale: Tensor | None, steps: int) -> None:
        self._head = head
        self.n_iter_ = max(steps, 1)
        self.scale_ = None if scale is None else scale.numpy()
        for name in ("coef_", "intercept_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if isinstance(head, Linear):
            self.coef_, self.intercept_ = head.weight.numpy(), head.bias.numpy()
        self.expressed_prior_ = expressed.numpy()

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
        """The head of an earlier fit, if warm_start is set and the classes are the same."""
        head = self._linear_head() if self.warm_start else None
        if head is None or head.weight.shape[1] != num_features:
            return None
        return head if np.array_equal(classes, self.classes_) else None

    def _linear_head(self) -> Linear | None:
        """The head of an earlier fit, or its linear part."""
        head = getattr(self, "_head", None)
        head = head.linear if isinstance(head, MixtureHead) else head
        return head if isinstance(head, Linear) else None

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[Array, Array, Array]:
        """Checked features, labels and weights of the samples with a weight above 0."""
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
        weight = checked_weight(self, sample_weight, labels)
        weight = np.ones(len(labels)) if weight is None else weight.astype(np.float64)
        keep = weight > 0
        return (x, labels, weight) if keep.all() else (x[keep], labels[keep], weight[keep])

    def _check_settings(self) -> None:
        self._validate_params()
        check_method(self.method, self.method_params or {})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = _is_linear(self)
        return tags
