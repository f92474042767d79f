"""PriorTracker: finds, follows, forgets, resumes."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from longtail.shift import Calibration, PriorTracker
from longtail.shift.estimation.em import em_prior

P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
MEANS = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)


def draw(mix: Tensor, size: int, generator: torch.Generator) -> Tensor:
    labels = torch.multinomial(mix, size, replacement=True, generator=generator)
    x = MEANS[labels] + torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return -0.5 * torch.cdist(x, MEANS) ** 2 + P.log()


def test_follows_a_change() -> None:
    generator = torch.Generator().manual_seed(0)
    tracker = PriorTracker(P, half_life=1000)
    q = P.flip(0)
    assert torch.equal(tracker.prior, P)
    for mix in (q, P):
        for _ in range(60):
            tracker.update(draw(mix, 100, generator))
        assert (tracker.prior - mix).abs().sum() < 0.1 < (P - q).abs().sum()
    torch.testing.assert_close(tracker.prior.sum(), torch.ones((), dtype=torch.float64))


def test_agrees_with_em_on_all_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [draw(P.flip(0), 200, generator) for _ in range(200)]
    tracker = PriorTracker(P, half_life=10_000, strength=0.0)
    for batch in batches:
        tracker.update(batch)
    found = em_prior(torch.cat(batches).softmax(dim=1), P)
    # Forgetting leaves it about 14,000 of the 40,000 samples.
    torch.testing.assert_close(tracker.prior, found, atol=0.03, rtol=0.0)


def test_a_class_comes_back_however_long_it_stayed_away() -> None:
    tracker = PriorTracker([0.5, 0.5], half_life=10, strength=0.0)
    sure = 30 * torch.eye(2)
    for _ in range(100):
        tracker.update(sure[[0] * 10])
    assert tracker.prior[1] < 1e-6
    for _ in range(3):
        tracker.update(1e3 * sure[[1] * 100])
    assert tracker.prior[1] > 0.99
    tracker = PriorTracker([0.5, 0.5], strength=0.0)
    tracker.update(1e3 * sure[:1])
    tracker.update(1e3 * sure[1:])
    assert 0.4 < tracker.prior[0] < 0.6


def test_effective_samples() -> None:
    tracker = PriorTracker(P, half_life=500)
    assert tracker.effective_samples == 0
    generator = torch.Generator().manual_seed(0)
    tracker.update(draw(P, 10, generator))
    assert tracker.effective_samples == pytest.approx(10)
    for _ in range(1000):
        tracker.update(draw(P, 10, generator))
    fade = 0.5 ** (10 / 500)
    assert tracker.effective_samples == pytest.approx(10 * (1 + fade) / (1 - fade), rel=1e-4)


def test_calibration_and_source_prior_are_used() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = draw(P.flip(0), 500, generator)
    plain, corrected = (
        PriorTracker(P),
        PriorTracker(
            P, calibration=Calibration(torch.tensor(0.5).double(), torch.zeros(3).double())
        ),
    )
    plain.update(batch)
    corrected.update(2 * batch)
    torch.testing.assert_close(plain.prior, corrected.prior)
    shrunk = PriorTracker(P, source_prior=P.flip(0), strength=1e9)
    shrunk.update(batch)
    torch.testing.assert_close(shrunk.prior, P.flip(0), atol=1e-6, rtol=0.0)


def test_resumes_bit_for_bit_and_in_place_of_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [draw(P.flip(0), 50, generator) for _ in range(6)]
    whole, first, second = (PriorTracker(P, half_life=100) for _ in range(3))
    for batch in batches:
        whole.update(batch)
    for batch in batches[:3]:
        first.update(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        second.update(batch)
    assert torch.equal(whole.prior, second.prior)
    assert whole.effective_samples == second.effective_samples


def test_refused_batches_change_nothing() -> None:
    tracker = PriorTracker(P)
    tracker.update(draw(P, 50, torch.Generator().manual_seed(0)))
    before = {name: value.clone() for name, value in tracker.state_dict().items()}
    bad = torch.zeros(2, 3)
    bad[1, 2] = torch.nan
    for batch, message in (
        (bad, "logits of PriorTracker must be finite, got nan in row 1"),
        (torch.zeros(0, 3), "at least one sample"),
        (torch.zeros(2, 4), r"must have shape \(samples, 3\), got \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            tracker.update(batch)
    for name, value in tracker.state_dict().items():
        assert torch.equal(value, before[name])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="half_life of PriorTracker must be above 0, got 0"):
        PriorTracker(P, half_life=0)
    with pytest.raises(ValueError, match="strength of PriorTracker must be >= 0, got -1"):
        PriorTracker(P, strength=-1)
    with pytest.raises(ValueError, match="strength of PriorTracker must be >= 0 and finite, got"):
        PriorTracker(P, strength=float("inf"))
    with pytest.raises(ValueError, match="expressed of PriorTracker must sum to 1"):
        PriorTracker([0.5, 0.6])
    with pytest.raises(ValueError, match=r"must have counts of shape \(3,\), got nothing"):
        PriorTracker(P).load_state_dict({})


def test_a_state_from_json() -> None:
    tracker, again = PriorTracker(P), PriorTracker(P)
    tracker.update(draw(P, 50, torch.Generator().manual_seed(0)))
    text = json.dumps({name: value.tolist() for name, value in tracker.state_dict().items()})
    again.load_state_dict(json.loads(text))
    for name, value in again.state_dict().items():
        assert torch.equal(value, tracker.state_dict()[name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior": [2.0, -1.0, 0.0]}, "prior in the state of PriorTracker must be >= 0, got -1"),
        ({"prior": [0.5, 0.4, 0.0]}, "prior in the state of PriorTracker must sum to 1"),
        ({"counts": [1.0, float("nan"), 0.0]}, "counts in the state .* >= 0 and finite, got nan"),
        ({"counts": ["a", "b", "c"]}, "counts in the state of PriorTracker must be numbers"),
        ({"counts": [1.0]}, r"must have counts of shape \(3,\), got \(1,\)"),
        ({"squares": -1.0}, "squares in the state of PriorTracker must be >= 0, got -1"),
    ],
)
def test_a_wrong_state_changes_nothing(wrong: dict[str, Any], message: str) -> None:
    tracker = PriorTracker(P)
    before = {name: value.clone() for name, value in tracker.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        tracker.load_state_dict({**before, **wrong})
    for name, value in tracker.state_dict().items():
        assert torch.equal(value, before[name])
