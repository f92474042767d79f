"""What holds of every estimate: missing classes, intervals, the test's level, single rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.shift import (
    PriorTracker,
    adjust,
    estimate_prior,
    fit_calibration,
    protocol_table,
    relative_absolute_error,
)

METHODS = ("em", "bbse", "bbse_soft", "rlls", "kdey")
P = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03], dtype=torch.float64)
Q = torch.tensor([0.1, 0.1, 0.2, 0.3, 0.3], dtype=torch.float64)


def bayes(
    prior: Tensor, size: int, expressed: Tensor, seed: int, apart: float = 2.0, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Logits of Gaussian classes, each with a mean on an axis of its own, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    means = apart * torch.eye(len(prior)).double()
    labels = torch.multinomial(prior, size, replacement=True, generator=generator)
    x = means[labels] + torch.randn(size, len(prior), generator=generator).double()
    return scale * (-0.5 * torch.cdist(x, means) ** 2 + expressed.log()), labels


@pytest.mark.parametrize("missing", [(), (0,), (2,), (4,), (3, 4), (0, 4), (1, 2, 3, 4)])
def test_classes_without_a_source_sample_are_estimated_as_well(missing: tuple[int, ...]) -> None:
    errors = []
    for seed in range(3):
        source, labels = bayes(P, 1000, P, seed=2 * seed)
        keep = ~torch.isin(labels, torch.tensor(missing, dtype=torch.int64))
        target = bayes(Q, 800, P, seed=2 * seed + 1)[0]
        found = estimate_prior(source[keep], labels[keep], target, P)
        assert found.reliable == (not missing)
        assert found.shifted
        errors.append(float((found.estimated - Q).abs().sum()))
    assert np.mean(errors) <= 0.12


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(METHODS),
    st.sampled_from([0.3, 1.0, 3.0]),
    st.integers(0, 10_000),
)
@example(6, 6, 8, "kdey", 3.0, 0)  # a flat likelihood, in which EM creeps
@pytest.mark.filterwarnings("ignore:em_prior stopped after 1000 iterations")
def test_the_estimate_and_the_prior_in_use_lie_in_the_interval(
    classes: int, source: int, target: int, method: str, apart: float, seed: int
) -> None:
    draw = torch.distributions.Dirichlet(torch.ones(classes).double())
    torch.manual_seed(seed)
    p, q = draw.sample() * 0.9 + 0.1 / classes, draw.sample()
    p = p / p.sum()
    labelled = bayes(p, source, p, seed, apart, scale=2.0)
    found = estimate_prior(*labelled, bayes(q, target, p, seed + 1, apart, 2.0)[0], p, method)  # type: ignore[arg-type]
    low, high = found.interval.T
    for prior in (found.estimated, found.prior):
        assert ((low <= prior) & (prior <= high)).all()
        torch.testing.assert_close(prior.sum(), torch.ones(()).double())
    assert ((low >= 0) & (high <= 1)).all()
    if found.region is not None:
        assert found.region.contains(found.estimated)


@pytest.mark.parametrize(("source", "target"), [(3, 3), (3, 100), (12, 12), (100, 3), (30, 100)])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_test_keeps_its_level_with_few_samples(
    source: int, target: int, balanced: bool
) -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    drawn = torch.full_like(p, 1 / 3) if balanced else p
    alarms = sum(
        estimate_prior(
            *bayes(drawn, source, p, 2 * seed),
            bayes(p, target, p, 2 * seed + 1)[0],
            p,
            interval=False,
        ).shifted
        for seed in range(60)
    )
    assert alarms <= 8  # Binomial(60, 0.05): above 8 once in 500 times


def test_the_region_holds_its_promise() -> None:
    p, held, runs = P, 0, 60
    for seed in range(runs):
        found = estimate_prior(
            *bayes(p, 400, p, 2 * seed, 1.5), bayes(Q, 200, p, 2 * seed + 1, 1.5)[0], p
        )
        assert found.region is not None
        held += found.region.contains(Q)
        assert not found.region.contains([1.0, 0.0, 0.0, 0.0, 0.0])
    assert held >= 0.87 * runs  # 57 expected, standard deviation 1.7


def test_intervals_hold_for_a_badly_calibrated_model() -> None:
    """The logits ignore all but one feature and are too large, nonlinearly."""
    held, runs = 0.0, 40
    for seed in range(runs):
        source, labels = bayes(P, 600, P, 2 * seed, 1.5)
        target = bayes(Q, 600, P, 2 * seed + 1, 1.5)[0]
        bent = [2 * z + 0.1 * z.pow(2) - 0.5 * z.roll(1, dims=1) for z in (source, target)]
        found = estimate_prior(bent[0], labels, bent[1], P)
        held += float(((found.interval[:, 0] <= Q) & (found.interval[:, 1] >= Q)).double().mean())
    assert held >= 0.9 * runs


def test_shrinkage_costs_nothing_on_easy_data() -> None:
    """Classes that are easily told apart, and priors that are not of the family shrunk towards."""
    source, generator, behind = bayes(P, 400, P, 0, 5.0), np.random.default_rng(0), []
    for seed in range(1, 41):
        q = torch.from_numpy(generator.dirichlet([3.0] * 5))
        target = bayes(q, 60, P, seed, 5.0)[0]
        shrunk, plain = (
            estimate_prior(*source, target, P, strength=strength, interval=False).estimated
            for strength in (None, 0.0)
        )
        errors = [relative_absolute_error(q, found, samples=60) for found in (shrunk, plain)]
        behind.append(errors[0] - errors[1])
    assert np.mean(behind) < 2 * np.std(behind) / len(behind) ** 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_single_target_sample_reports_nothing_extreme(method: str) -> None:
    source, labels = bayes(P, 300, P, 0)
    for row in (30 * torch.eye(5).double()[4:], source[:1]):
        found = estimate_prior(source, labels, row, P, method)  # type: ignore[arg-type]
        assert torch.equal(found.prior, P)
        assert torch.equal(found.estimated, P)
        assert not found.shifted
        assert found.p_value == 1.0
        assert not found.reliable
        assert (found.interval.diff(dim=1) > 0.3).all()


def test_probabilities_are_not_taken_for_logits() -> None:
    logits, labels = bayes(P, 200, P, 0)
    probabilities = logits.softmax(dim=1)
    train = ClassPrior([50, 25, 15, 7, 3])
    calls = {
        "source_logits": lambda: estimate_prior(probabilities, labels, logits, P),
        "target_logits": lambda: estimate_prior(logits, labels, probabilities, P),
        "logits of fit_calibration": lambda: fit_calibration(probabilities, labels, P),
        "logits of PriorTracker": lambda: PriorTracker(P).update(probabilities),
        "logits of adjust": lambda: adjust(probabilities.numpy(), P, Q),
        "logits of protocol_table": lambda: protocol_table(
            probabilities, labels, train, P, lambda _, __: {}
        ),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}.* must be logits, got probabilities"):
            call()
    estimate_prior(probabilities.log(), labels, probabilities.log(), P)
    with pytest.raises(ValueError, match="got probabilities"):
        adjust(probabilities[:10].bfloat16(), P, Q)


def test_a_few_rows_of_logits_that_sum_to_one_are_not_rejected() -> None:
    for logits in (torch.tensor([0.3, 0.7]), torch.tensor([[0.3, 0.7]] * 9)):
        expected = logits + torch.tensor([0.5 / 0.8, 0.5 / 0.2]).log()
        torch.testing.assert_close(adjust(logits, [0.8, 0.2], [0.5, 0.5]), expected)
    with pytest.raises(ValueError, match="got probabilities"):
        adjust(logits.repeat(2, 1), [0.8, 0.2], [0.5, 0.5])


@pytest.mark.parametrize("level", [5, 0.0, 1.0, float("nan")])
def test_level_out_of_range(level: float) -> None:
    source, labels = bayes(P, 200, P, 0)
    with pytest.raises(ValueError, match=r"level of estimate_prior must be .*\(0, 1\).* got"):
        estimate_prior(source, labels, source, P, level=level)
    assert estimate_prior(source, labels, source, P, level=0.01).prior is not None


def test_lists_and_data_frames() -> None:
    source, labels = bayes(P, 200, P, 0)
    target = bayes(Q, 100, P, 1)[0]
    expected = estimate_prior(source, labels, target, P)
    frames = (pd.DataFrame(source.numpy()), pd.Series(labels.numpy()), pd.DataFrame(target.numpy()))
    for given_source, given_labels, given_target in (
        frames,
        (source.tolist(), labels.tolist(), target.tolist()),
    ):
        found = estimate_prior(given_source, given_labels, given_target, P.tolist())  # type: ignore[arg-type]
        torch.testing.assert_close(found.estimated, expected.estimated)
        adjusted = adjust(given_target, P, found.estimated)
        assert isinstance(adjusted, np.ndarray)
        np.testing.assert_array_equal(adjusted, adjust(target, P, found.estimated).numpy())


def test_the_table_and_estimate_prior_are_one_estimator() -> None:
    """Cross-fitted: each half of the test set is the source of the other."""
    uniform = torch.full_like(P, 0.2)
    logits, labels = bayes(uniform, 1500, P, 0)
    train = ClassPrior((P * 1000).round().long())
    seen: list[Tensor] = []

    def score(adjusted: Tensor, _: Tensor) -> dict[str, float]:
        seen.append(adjusted.clone())
        return {}

    columns = protocol_table(
        logits, labels, train, P, score, columns=[("forward", 2.0), ("backward", 5.0)]
    )
    raw = seen[3]
    occurrence = torch.zeros(len(labels), dtype=torch.int64)
    for c in range(5):
        occurrence[labels == c] = torch.arange(int((labels == c).sum()))
    estimates = [
        estimate_prior(logits[half], labels[half], raw, P, training_prior=train, interval=False)
        for half in (occurrence % 2 == 0, occurrence % 2 == 1)
    ]
    mean = (estimates[0].prior + estimates[1].prior) / 2
    torch.testing.assert_close(columns[1].estimated, mean, atol=1e-9, rtol=0.0)
    assert columns[1].shifted == any(found.shifted for found in estimates)
