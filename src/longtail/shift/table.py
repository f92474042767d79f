"""LADE's table: a model on shifted test sets, with the prior unknown, known and estimated."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.shift.adjust import adjust, log_ratio
from longtail.shift.estimation.estimator import Estimator, PriorEstimate, Source
from longtail.shift.estimation.posterior import Logits, as_labels, as_logits, blocks
from longtail.shift.priors import Prior, probabilities
from longtail.shift.protocol import (
    COLUMNS,
    Direction,
    Indices,
    halves,
    prior_of,
    shifted_test_sets,
)

Score = Callable[[Tensor, Tensor], Mapping[str, float]]


@dataclass(frozen=True)
class Column:
    """One shifted test set.

    Attributes:
        direction: `forward` or `backward`; ratio 1 is balanced either way.
        ratio: largest class over smallest.
        samples: size of the set.
        prior: (num_classes,), its class prior.
        estimated: (num_classes,), the estimated class prior; the mean of two when cross-fitted.
        shifted: whether a shift was found (by either half).
        scores: `raw`, `known` and `estimated`, each the result of `score`.
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

    `raw` scores the unadjusted logits, `known` those adjusted to the set's own class prior, and
    `estimated` those adjusted to the prior that `estimate_prior` finds (by `em`) without the labels
    of the samples that it is applied to.

    The estimate needs labelled samples other than those it is scored on. They are `source` (the
    logits and labels of a validation split) if given. Otherwise the test set is halved, class by
    class, every other sample in file order, and cross-fitted: calibration uses the labels of one
    half, the prior is estimated from the unlabelled logits of the whole shifted set, and it is
    applied to the other half only. No prediction uses a label of its own half, and all are scored.

    The peak memory is about the size of `logits`, in addition to it.

    Args:
        logits: (samples, num_classes), of a balanced test set, raw.
        labels: (samples,), in file order.
        train_counts: class counts of the training set.
        expressed: prior that the logits express.
        score: takes logits (n, num_classes) and labels (n,), returns metrics by name.
        source: validation logits and labels.
        columns: direction and ratio of each set.
    Raises: ValueError: as `shifted_test_sets` and `estimate_prior`.
    """
    prior = probabilities(expressed, "expressed of protocol_table", train_counts.num_classes)
    training = train_counts.probabilities
    matrix = as_logits(logits, "logits of protocol_table", len(prior))
    truth = as_labels(labels, "labels of protocol_table", len(matrix), len(prior))
    sets = [shifted_test_sets(truth, train_counts, ratio, way) for way, ratio in columns]
    # An estimator holds a matrix of posteriors; one is freed before the next is made.
    found = [
        (applies, _estimates(matrix, sets, Estimator(labelled, prior, prior, training)))
        for labelled, applies in _folds(matrix, truth, source)
    ]
    return [
        _column(column, sets[n], matrix, truth, prior, score, [(a, one[n]) for a, one in found])
        for n, column in enumerate(columns)
    ]


def _estimates(
    matrix: Tensor, sets: Sequence[Indices], estimator: Estimator
) -> list[PriorEstimate]:
    """The estimate for each set, all from one matrix of posteriors."""
    posteriors, source = estimator.source_posteriors, estimator.source
    if source is None or source.logits is not matrix or posteriors is None:
        posteriors = estimator.posteriors(matrix)
    rows = [torch.from_numpy(indices).to(posteriors.device) for indices in sets]
    return [estimator.estimate(posteriors, mine, interval=False) for mine in rows]


def _folds(
    matrix: Tensor, truth: Tensor, source: tuple[Logits, ArrayLike | Tensor] | None
) -> Iterator[tuple[Source, NDArray[np.bool_]]]:
    """Labelled samples, and the rows (samples,) of the matrix that their estimate applies to."""
    device = matrix.device
    if source is not None:
        logits = as_logits(source[0], "source of protocol_table", matrix.shape[1])
        labels = as_labels(source[1], "source of protocol_table", len(logits), matrix.shape[1])
        yield Source(logits.to(device), labels.to(device)), np.ones(len(truth), dtype=bool)
        return
    for half in halves(truth):
        other = np.ones(len(truth), dtype=bool)
        other[half] = False
        yield Source(matrix, truth[half].to(device), torch.from_numpy(half).to(device)), other


def _column(
    column: tuple[Direction, float],
    indices: Indices,
    matrix: Tensor,
    truth: Tensor,
    expressed: Tensor,
    score: Score,
    found: Sequence[tuple[NDArray[np.bool_], PriorEstimate]],
) -> Column:
    rows, labels = torch.from_numpy(indices).to(matrix.device), truth[indices].to(matrix.device)
    known = prior_of(labels, len(expressed))
    subset = matrix[rows]
    scores = {"raw": score(subset, labels)}
    mean = torch.zeros_like(known)
    for applies, estimate in found:
        mine = torch.from_numpy(np.flatnonzero(applies[indices])).to(matrix.device)
        ratio = log_ratio(expressed, estimate.prior).to(subset)
        for rows_of_block in blocks(len(mine), len(expressed)):
            subset[mine[rows_of_block]] += ratio
        mean += estimate.prior / len(found)
    estimated = score(subset, labels)
    with warnings.catch_warnings():
        # A class that is left out of a small test set with a large ratio is part of the protocol.
        warnings.filterwarnings("ignore", message="target of adjust is 0")
        torch.index_select(matrix, 0, rows, out=subset)
        scores["known"] = score(adjust(subset, expressed, known, out=subset), labels)
    scores["estimated"] = estimated
    shifted = any(estimate.shifted for _, estimate in found)
    return Column(*column, len(indices), known, mean, shifted, scores)
