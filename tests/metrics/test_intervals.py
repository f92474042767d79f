import math

import pytest
import torch
from scipy.stats import binomtest

from longtail import ClassPrior
from longtail.errors import InputError
from longtail.metrics import (
    accuracy_intervals,
    best_run,
    classification_metrics,
    metrics_from_scores,
    resampled_metrics,
    score_samples,
    wilson_interval,
)

PRIOR = ClassPrior([500, 101, 100, 20, 19, 2])


def made_up(samples=300, seed=0, strength=1.5):
    labels = torch.arange(samples) % 6
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 6, generator=generator) * 2
    logits[torch.arange(samples), labels] += strength
    return logits, labels


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (3, 3), (0, 40), (17, 40), (999, 1000)])
def test_wilson_is_that_of_scipy(hits, count):
    low, high = wilson_interval(torch.tensor(hits), torch.tensor(count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx(tuple(expected), abs=1e-6)


def test_wilson_of_no_trial_is_undefined():
    assert all(bound.isnan() for bound in wilson_interval(torch.tensor(0), torch.tensor(0)))


def test_intervals_hold_the_accuracies_and_shrink_with_the_samples():
    small, large = (score_samples(*made_up(samples)) for samples in (60, 6000))
    metrics = metrics_from_scores(small, PRIOR)
    found = accuracy_intervals(small, PRIOR)
    assert found.keys() == {"accuracy", "many", "medium", "few", "balanced_accuracy"}
    for name, (low, high) in found.items():
        assert 0 <= low <= metrics[name] <= high <= 1
        narrow = accuracy_intervals(large, PRIOR)[name]
        assert narrow[1] - narrow[0] < 0.15 * (high - low)


def test_a_group_without_a_test_sample_has_no_interval():
    scores = score_samples(torch.eye(2), [0, 0])
    assert all(
        math.isnan(bound) for bound in accuracy_intervals(scores, ClassPrior([500, 5]))["few"]
    )


def test_resampled_metrics_are_those_of_the_resampled_logits():
    logits, labels = made_up(60)
    ours = resampled_metrics([score_samples(logits, labels)], PRIOR, resamples=3, seed=5)
    drawn = torch.randint(60, (3, 60), generator=torch.Generator().manual_seed(5))
    for number, rows in enumerate(drawn):
        expected = classification_metrics(logits[rows], labels[rows], PRIOR)
        found = {name: float(values[0, number]) for name, values in ours.items()}
        assert found == pytest.approx({name: expected[name] for name in found}, nan_ok=True)


def test_runs_are_resampled_together():
    scores = score_samples(*made_up())
    values = resampled_metrics([scores, scores], PRIOR)
    assert all(torch.equal(*pair) for pair in values.values())


def test_runs_of_other_samples_are_refused():
    runs = [score_samples(*made_up(60)), score_samples(*made_up(66))]
    with pytest.raises(InputError, match="runs of resampled_metrics must have the same labels"):
        resampled_metrics(runs, PRIOR)


def best(strengths, name="accuracy", higher=True, samples=300):
    runs = [
        score_samples(*made_up(samples, seed, strength)) for seed, strength in enumerate(strengths)
    ]
    values = [metrics_from_scores(run, PRIOR)[name] for run in runs]
    return best_run(resampled_metrics(runs, PRIOR)[name], values, higher)


def test_best_is_beyond_chance():
    assert best([1.5, 4.0]) == 1
    assert best([4.0, 1.5, 1.5], "nll", higher=False) == 0
    assert best([1.5, 1.6]) is None  # a little better is no proof
    assert best([1.5, 4.0, 4.1]) is None  # better than the first, not than the second
    assert best([1.5, 4.0], samples=3) is None
    assert best([1.5]) is None


def test_equal_runs_have_no_best():
    scores = score_samples(*made_up())
    for name, values in resampled_metrics([scores, scores], PRIOR).items():
        point = metrics_from_scores(scores, PRIOR)[name]
        assert best_run(values, [point, point]) is None
