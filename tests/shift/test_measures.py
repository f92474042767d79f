"""Errors of class priors, and targets drawn by the protocols of quantification."""

from math import comb

import numpy as np
import pytest

from longtail.shift import (
    absolute_error,
    kl_divergence,
    normalised_absolute_error,
    normalised_match_distance,
    relative_absolute_error,
    target_sets,
)


def test_errors_by_hand() -> None:
    true, found = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    assert absolute_error(true, found) == pytest.approx(0.6 / 3)
    assert normalised_absolute_error(true, found) == pytest.approx(0.6 / (2 * 0.8))
    assert normalised_match_distance(true, found) == pytest.approx((0.3 + 0.3) / 2)
    e = 1 / 20
    q, p = ([(x + e) / (1 + 3 * e) for x in values] for values in (true, found))
    relative = sum(abs(a - b) / a for a, b in zip(q, p, strict=True)) / 3
    assert relative_absolute_error(true, found, 10) == pytest.approx(relative)
    divergence = sum(a * np.log(a / b) for a, b in zip(q, p, strict=True))
    assert kl_divergence(true, found, 10) == pytest.approx(divergence)


def test_bounds_of_the_errors() -> None:
    true, found = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    assert normalised_absolute_error(true, found) == 1.0
    assert normalised_match_distance(true, found) == 1.0
    assert np.isfinite(relative_absolute_error(true, found, 100))
    assert kl_divergence(true, true, 100) == 0.0
    with pytest.raises(ValueError, match="estimated prior must have 3 classes, got 2"):
        absolute_error(true, [0.5, 0.5])
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        kl_divergence(true, found, 0)
    with pytest.raises(ValueError, match="samples of an error of a prior must be >= 1 and finite"):
        kl_divergence(true, found, np.nan)  # type: ignore[arg-type]


def test_artificial_prevalence_visits_the_grid() -> None:
    labels = np.repeat(np.arange(3), [50, 30, 3])
    sets = [labels[i] for i in target_sets(labels, "app", 20, 2, steps=5)]
    assert len(sets) == 2 * comb(5 + 2, 2)
    counts = {tuple(np.bincount(chosen, minlength=3)) for chosen in sets}
    assert counts == {(4 * a, 4 * b, 20 - 4 * a - 4 * b) for a in range(6) for b in range(6 - a)}


def test_natural_and_uniform_prevalence() -> None:
    labels = np.repeat(np.arange(3), [500, 300, 200])
    natural = [labels[i] for i in target_sets(labels, "npp", 100, 40)]
    shares = np.array([np.bincount(chosen, minlength=3) / 100 for chosen in natural])
    assert np.abs(shares.mean(axis=0) - [0.5, 0.3, 0.2]).max() < 0.03
    uniform = [labels[i] for i in target_sets(labels, "upp", 100, 300)]
    shares = np.array([np.bincount(chosen, minlength=3) / 100 for chosen in uniform])
    assert np.abs(shares.mean(axis=0) - 1 / 3).max() < 0.05
    # Variance of an entry under the uniform distribution on the simplex: 2 / (9 * 4).
    assert np.abs(shares.var(axis=0) - 1 / 18).max() < 0.02
    indices = next(target_sets(labels, "upp", 150, 1, seed=3))
    assert len(np.unique(indices)) == 150
    again = next(target_sets(labels, "upp", 150, 1, seed=3))
    np.testing.assert_array_equal(indices, again)


def test_bad_arguments() -> None:
    for change, message in (
        ({"protocol": "abc"}, "protocol of target_sets must be one of .* got 'abc'"),
        ({"size": 0}, "must be >= 1, got 0, 1, 10"),
        ({"labels": [0, 2]}, "must contain every class, got no sample of class 1"),
        ({"labels": list(range(30))}, "steps of target_sets must give at most 1,000,000 priors"),
    ):
        given = {"labels": [0, 1], "protocol": "app", "size": 2, "repeats": 1} | change
        with pytest.raises(ValueError, match=message):
            next(target_sets(**given))  # type: ignore[arg-type]
