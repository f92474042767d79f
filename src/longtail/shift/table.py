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
from longtail.shift.bootstrap import ShiftTest, resample_weights
from longtail.shift.calibration import Calibration, fit_calibration
from longtail.shift.em import em_prior
from longtail.shift.likelihood import DENSE
from longtail.shift.moments import Confusion
from longtail.shift.posterior import Logits, as_labels, as_logits, blocks
from longtail.shift.priors import Prior, probabilities
from longtail.shift.protocol import (
    COLUMNS,
    Direction,
    Indices,
    halves,
    mix_of,
    shifted_test_sets,
)
from longtail.shift.tilt import Tilts, has_direction

Score = Callable[[Tensor, Tensor], Mapping[str, float]]
# Resamples of the tests. Twenty hold a level of 5% as exactly as a hundred do, with less power.
RESAMPLES, RESAMPLES_OF_MANY, LEVEL = 100, 20, 0.05


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
    columns: Sequence[tuple[Direction, float]] = COLUMNS,
) -> list[Column]:
    """Scores one prediction matrix on every shifted test set, under three priors.

    `raw` scores the logits as they are, `known` those adjusted to the set's own class mix, and
    `estimated` those adjusted to the mix that `estimate_prior` finds (by `em`) without the labels
    of the samples that it is applied to.

    The estimate needs labelled samples that are not the ones it is scored on. With `source` (the
    logits and labels of a validation split) it has them. Without, the test set is halved, class by
    class, every other sample in file order, and cross-fitted: the labels of one half calibrate, the
    logits of the whole shifted set, without labels, give the mix, and that mix is applied to the
    other half alone. So no prediction has used a label of its own half, and all are scored.

    Needs, at its peak, about as much memory as `logits` beside it.

    Args:
        logits: (samples, num_classes), of a balanced test set, raw.
        labels: (samples,), in file order.
        train_counts: of the training set.
        expressed: the prior that the logits express.
        score: takes logits (n, num_classes) and labels (n,), returns figures by name.
        source: validation logits and labels.
        columns: direction and ratio of each set.
    Raises: ValueError: as `shifted_test_sets` and `estimate_prior`.
    """
    prior = probabilities(expressed, "expressed of protocol_table", train_counts.num_classes)
    matrix = as_logits(logits, "logits of protocol_table", len(prior))
    truth = as_labels(labels, "labels of protocol_table", len(matrix), len(prior))
    sets = [shifted_test_sets(truth, train_counts, ratio, way) for way, ratio in columns]
    folds = _folds(matrix, truth, prior, source)
    training = train_counts.probabilities
    estimates = zip(*(fold.estimates(matrix, sets, prior, training) for fold in folds), strict=True)
    return [
        _column(column, places, matrix, truth, prior, score, list(zip(folds, found, strict=True)))
        for column, places, found in zip(columns, sets, estimates, strict=True)
    ]


# A mix, and whether it is another than the one expressed.
Estimate = tuple[Tensor, bool]


@dataclass(frozen=True)
class _Fold:
    """A calibration, the labelled samples it was fitted to, and those that it may speak of.

    Attributes:
        source: logits of the labelled samples; None where they are rows of the matrix itself.
        labels: of the labelled samples.
        places: rows of the matrix that are the labelled samples; None with `source`.
        calibration: fitted to them.
        applies: (samples,), rows of the matrix to which its estimate is applied.
    """

    source: Tensor | None
    labels: Tensor
    places: Tensor | None
    calibration: Calibration
    applies: NDArray[np.bool_]

    def estimates(
        self, matrix: Tensor, sets: Sequence[Indices], expressed: Tensor, training: Tensor
    ) -> list[Estimate]:
        """What `estimate_prior` would give for each set, all from one matrix of posteriors."""
        posteriors = self.calibration.posteriors(matrix, expressed, expressed)
        features = posteriors
        if self.source is not None:
            features = self.calibration.posteriors(self.source, expressed, expressed)
            features = features.to(posteriors)
        confusion = Confusion(features, self.labels, features, self.places)
        generator = torch.Generator().manual_seed(0)
        draws = RESAMPLES if len(expressed) <= DENSE else RESAMPLES_OF_MANY
        on_source = resample_weights(len(self.labels), draws, posteriors, generator)
        tilts = Tilts(expressed, training, confusion) if has_direction(training) else None

        def estimate(places: Indices) -> Estimate:
            rows = torch.from_numpy(places).to(posteriors.device)
            on_target = resample_weights(len(rows), draws, posteriors, generator)
            test = ShiftTest(confusion, posteriors, rows, on_source, on_target)
            if test.p_value(expressed, tilts.slope if tilts else None) >= LEVEL:
                return expressed, False
            tilted = expressed
            if tilts is not None:
                tilted = tilts.nearest(test.mean, len(rows))[1]
            strength = test.strength(tilted)
            return em_prior(posteriors, expressed, strength, tilted, rows), True

        return [estimate(places) for places in sets]


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
        folds.append(_Fold(None, truth[half].to(device), places, fitted, other))
    return folds


def _column(
    column: tuple[Direction, float],
    places: Indices,
    matrix: Tensor,
    truth: Tensor,
    expressed: Tensor,
    score: Score,
    found: Sequence[tuple[_Fold, Estimate]],
) -> Column:
    rows, labels = torch.from_numpy(places).to(matrix.device), truth[places].to(matrix.device)
    known = mix_of(labels, len(expressed))
    subset = matrix[rows]
    scores = {"raw": score(subset, labels)}
    mean = torch.zeros_like(known)
    for fold, (mix, _) in found:
        mine = torch.from_numpy(np.flatnonzero(fold.applies[places])).to(matrix.device)
        ratio = log_ratio(expressed, mix).to(subset)
        for part in blocks(len(mine), len(expressed)):
            subset[mine[part]] += ratio
        mean += mix / len(found)
    estimated = score(subset, labels)
    with warnings.catch_warnings():
        # A class that a small test set leaves out at a large ratio is part of the protocol.
        warnings.filterwarnings("ignore", message="target of adjust is 0")
        torch.index_select(matrix, 0, rows, out=subset)
        scores["known"] = score(adjust(subset, expressed, known, out=subset), labels)
    scores["estimated"] = estimated
    shifted = any(other for _, (_, other) in found)
    return Column(*column, len(places), known, mean, shifted, scores)
