"""Targets with many class priors, drawn from one labelled set: APP, NPP and UPP."""

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.errors import InputError
from longtail.shift.protocol import Indices, class_indices

Protocol = Literal["app", "npp", "upp"]
# Largest number of priors in the grid of `app`.
MOST = 1_000_000


def target_sets(
    labels: ArrayLike | Tensor,
    protocol: Protocol,
    size: int,
    repeats: int,
    *,
    steps: int = 10,
    seed: int = 0,
    num_classes: int | None = None,
) -> Iterator[Indices]:
    """Yields indices of targets whose class priors follow a protocol of quantification.

    - `app`, artificial prevalence: every prior whose entries are multiples of 1 / `steps`, each
      `repeats` times.
    - `npp`, natural prevalence: `repeats` random subsets.
    - `upp`, uniform prevalence: `repeats` priors drawn uniformly from the simplex.

    With `app` and `upp` each class gets its probability times `size` samples, rounded to the
    nearest whole numbers that sum to `size`; samples are drawn without replacement, or with it if a
    class has too few.

    Args:
        labels: (samples,), class index of each sample.
        protocol: see above.
        size: samples of each target, 1 or more.
        repeats: see above, 1 or more.
        steps: steps of the grid of `app`, 1 or more.
        seed: seed of NumPy's default generator.
        num_classes: default: the largest label plus one.
    Returns: an iterator over int64 arrays (size,), ascending.
    Raises: ValueError: when an argument is out of range, or a class has no sample.

    Examples:
        >>> [indices.tolist() for indices in target_sets([0, 1], "app", 2, 1, steps=2)]
        [[1, 1], [0, 1], [0, 0]]
    """
    if protocol not in get_args(Protocol):
        raise InputError(
            f"protocol of target_sets must be one of {get_args(Protocol)}, got {protocol!r}"
        )
    if min(size, repeats, steps) < 1:
        raise InputError(
            f"size, repeats and steps of target_sets must be >= 1, got {size}, {repeats}, {steps}"
        )
    truth = class_indices(labels, num_classes)
    classes = num_classes or int(truth.max()) + 1
    pools = [np.flatnonzero(truth == c) for c in range(classes)]
    empty = [c for c, pool in enumerate(pools) if not len(pool)]
    if empty and protocol != "npp":
        raise InputError(
            f"labels of target_sets must contain every class, got no sample of class {empty[0]}"
        )
    grid = comb(steps + classes - 1, classes - 1)
    if protocol == "app" and grid > MOST:
        raise InputError(
            f"steps of target_sets must give at most {MOST:,} priors, got {steps} for {classes} "
            f"classes, which gives {grid:,}; upp draws as many as are asked for"
        )
    return _draw(pools, len(truth), protocol, size, repeats, steps, np.random.default_rng(seed))


def _draw(
    pools: list[Indices],
    samples: int,
    protocol: Protocol,
    size: int,
    repeats: int,
    steps: int,
    generator: np.random.Generator,
) -> Iterator[Indices]:
    if protocol == "npp":
        for _ in range(repeats):
            yield np.sort(generator.choice(samples, size, replace=size > samples))
        return
    if protocol == "upp":
        priors: Iterator[NDArray[np.float64]] = (
            generator.dirichlet(np.ones(len(pools))) for _ in range(repeats)
        )
    else:
        priors = (p for p in _grid(len(pools), steps) for _ in range(repeats))
    for prior in priors:
        counts = _rounded(prior * size, size)
        chosen = [
            generator.choice(pool, count, replace=count > len(pool))
            for pool, count in zip(pools, counts.tolist(), strict=True)
        ]
        yield np.sort(np.concatenate(chosen)).astype(np.int64)


def _grid(classes: int, steps: int) -> Iterator[NDArray[np.float64]]:
    """Every prior with entries k / steps, by stars and bars."""
    for bars in combinations(range(steps + classes - 1), classes - 1):
        ends = np.array([-1, *bars, steps + classes - 1])
        yield (np.diff(ends) - 1) / steps


def _rounded(shares: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Whole numbers nearest to `shares` that sum to `size`, by largest remainders."""
    counts = np.floor(shares).astype(np.int64)
    order = np.argsort(counts - shares, kind="stable")
    counts[order[: size - counts.sum()]] += 1
    return counts
