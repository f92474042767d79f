"""LADE's table: a model on shifted test sets, with the prior unknown, known and estimated."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.shift.adjust import adjust, log_ratio
from longtail.shift.calibration import Calibration, fit_calibration
from longtail.shift.em import default_strength
from longtail.shift.estimate import Method, PriorEstimate, solve
from longtail.shift.posterior import BLOCK, Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities
from longtail.shift.protocol import (
    COLUMNS,
    Direction,
    Indices,
    halves,
    mix_of,
    shifted_test_sets,
)
from longtail.shift.solvers import Problem

Score = Callable[[Tensor, Tensor], Mapping[str, float]]


@dataclass(frozen=True)
class Column:
    """One shifted test set.

    Attributes:
        direction: `forward` or `backward`; ratio 1 is balanced either way.
        ratio: largest class over smallest.
        samples: size of the set.
        prior: (num_classes,), its class mix.
        estimated: (num_classes,), the mix that was estimated; the mean of two when cross-fitted.
        shifted: whether a shift was found (by either half).
        scores: `raw`, `known` and `estimated`, each what `score` gave.
    """

    direction: Direction
    ratio: float
    samples: int
    prior: Tensor
    estimated: Tensor
    shifted: bool
    scores: Mapping[str, Mapping[str, float]]


def protocol_table(
    logits: Logits,
    labels: ArrayLike | Tensor,
    train_counts: ClassPrior,
    expressed: Prior,
    score: Score,
    *,
    source: tuple[Logits, ArrayLike | Tensor] | None = None,
    method: Method = "em",
    columns: Sequence[tuple[Direction, float]] = COLUMNS,
) -> list[Column]:
    """Scores one prediction matrix on every shifted test set, under three priors.

    `raw` scores the logits as they are, `known` those adjusted to the set's own class mix, and
    `estimated` those adjusted to the mix that `estimate_prior` finds without the set's labels.

    The estimate needs labelled samples that are not the ones it is scored on. With `source` (the
    logits and labels of a validation split) it has them. Without, the test set is halved, class by
    class, every other sample in file order, and cross-fitted: the labels of one half calibrate, the
    logits of the whole shifted set, without labels, give the mix, and that mix is applied to the
    other half alone. So no prediction has used a label of its own half, and all are scored.

    Needs, at its peak, less than twice the memory of `logits` beside it.

    Args:
        logits: (samples, num_classes), of a balanced test set, raw.
        labels: (samples,), in file order.
        train_counts: of the training set.
        expressed: the prior that the logits express.
        score: takes logits (n, num_classes) and labels (n,), returns figures by name.
        source: validation logits and labels.
        method: of `estimate_prior`.
        columns: direction and ratio of each set.
    Raises: ValueError: as `shifted_test_sets` and `estimate_prior`.
    """
    prior = probabilities(expressed, "expressed of protocol_table", train_counts.num_classes)
    matrix = as_logits(logits, "logits of protocol_table", len(prior))
    truth = as_labels(labels, "labels of protocol_table", len(matrix), len(prior))
    folds = _folds(matrix, truth, prior, source)
    found = []
    for direction, ratio in columns:
        places = shifted_test_sets(truth, train_counts, ratio, direction)
        found.append(
            _column((direction, ratio), places, matrix, truth, prior, score, folds, method)
        )
    return found


@dataclass(frozen=True)
class _Fold:
    """Labelled samples, a calibration fitted to them, and the samples that it may speak of."""

    logits: Tensor
    labels: Tensor
    places: Tensor | None
    calibration: Calibration
    applies: NDArray[np.bool_]

    def estimate(
        self, matrix: Tensor, places: Tensor, expressed: Tensor, method: Method
    ) -> PriorEstimate:
        problem = Problem(
            logits=matrix,
            posteriors=self.calibration.posteriors(matrix, expressed, expressed, places),
            source_logits=self.logits,
            source_labels=self.labels,
            expressed=expressed,
            reference=expressed,
            strength=default_strength(len(expressed), len(places)),
            calibration=self.calibration,
            source_places=self.places,
        )
        return solve(problem, method, 100, False, 0.05, torch.Generator().manual_seed(0))


def _folds(
    matrix: Tensor,
    truth: Tensor,
    expressed: Tensor,
    source: tuple[Logits, ArrayLike | Tensor] | None,
) -> list[_Fold]:
    device = matrix.device
    if source is not None:
        logits = as_logits(source[0], "source of protocol_table", len(expressed))
        labels = as_labels(source[1], "source of protocol_table", len(logits), len(expressed))
        fitted = fit_calibration(logits, labels, expressed)
        every = np.ones(len(truth), dtype=bool)
        return [_Fold(logits.to(device), labels.to(device), None, fitted, every)]
    folds = []
    for half in halves(truth):
        places = torch.from_numpy(half).to(device)
        other = np.ones(len(truth), dtype=bool)
        other[half] = False
        fitted = fit_calibration(matrix[places], truth[half], expressed)
        folds.append(_Fold(matrix, truth[half].to(device), places, fitted, other))
    return folds


def _column(
    column: tuple[Direction, float],
    places: Indices,
    matrix: Tensor,
    truth: Tensor,
    expressed: Tensor,
    score: Score,
    folds: Sequence[_Fold],
    method: Method,
) -> Column:
    rows, labels = torch.from_numpy(places).to(matrix.device), truth[places].to(matrix.device)
    known = mix_of(labels, len(expressed))
    # Before the subset is copied: the posteriors of an estimate are as large.
    estimates = [fold.estimate(matrix, rows, expressed, method) for fold in folds]
    subset = matrix if len(places) == len(matrix) else matrix[rows]
    scores = {"raw": score(subset, labels)}
    with warnings.catch_warnings():
        # A class that a small test set leaves out at a large ratio is part of the protocol.
        warnings.filterwarnings("ignore", message="target of adjust is 0")
        adjusted = adjust(subset, expressed, known)
        scores["known"] = score(adjusted, labels)
        mean = torch.zeros_like(known)
        for fold, estimate in zip(folds, estimates, strict=True):
            mine = torch.from_numpy(np.flatnonzero(fold.applies[places])).to(matrix.device)
            if len(mine):
                ratio = log_ratio(expressed, estimate.prior).to(subset)
                for block in torch.tensor_split(mine, 1 + len(mine) * len(expressed) // BLOCK):
                    adjusted[block] = subset[block] + ratio
            mean += estimate.prior / len(folds)
    scores["estimated"] = score(adjusted, labels)
    shifted = any(estimate.shifted for estimate in estimates)
    return Column(*column, len(places), known, mean, shifted, scores)
