"""The family of mixes between a source prior and its reverse, and how far the data leave it."""

import pytest
import torch
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.shift import estimate_prior, protocol_table
from longtail.shift.estimation.confusion import Confusion
from longtail.shift.estimation.em import em_prior
from longtail.shift.estimation.shift_test import Resampled, resample_weights
from longtail.shift.estimation.tilt import Tilts, has_direction


def tail(classes: int, imbalance: float = 30.0) -> Tensor:
    p = imbalance ** -(torch.arange(classes).double() / (classes - 1))
    return p / p.sum()


def draw(
    mix: Tensor, size: int, expressed: Tensor, seed: int, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Over-sure, biased logits of samples drawn with `mix`, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(mix)
    means = torch.randn(classes, 4, generator=torch.Generator().manual_seed(7)).double()
    means *= spread
    labels = torch.multinomial(mix, size, replacement=True, generator=generator)
    x = means[labels] + torch.randn(size, 4, generator=generator).double()
    bias = 0.5 * torch.randn(classes, generator=torch.Generator().manual_seed(8)).double()
    return 1.5 * (-0.5 * torch.cdist(x, means) ** 2 + expressed.log()) + bias, labels


def confusion_of(logits: Tensor, labels: Tensor) -> Confusion:
    posteriors = logits.softmax(dim=1)
    return Confusion(posteriors, labels, posteriors)


@pytest.mark.parametrize("power", [-2.0, -1.0, -0.37, 0.0, 0.5])
@pytest.mark.parametrize("expresses", ["source", "uniform"])
def test_the_power_is_found_without_calibration(power: float, expresses: str) -> None:
    training = tail(8)
    reference = training if expresses == "source" else torch.full_like(training, 1 / 8)
    q = reference * training**power
    q = q / q.sum()
    confusion = confusion_of(*draw(torch.full_like(q, 1 / 8), 4000, reference, seed=0))
    target = draw(q, 4000, reference, seed=1)[0].softmax(dim=1)
    tilts = Tilts(reference, training)
    expected = confusion.mean(tilts.priors(tilts.powers))
    found, mix = tilts.nearest(expected, target.mean(dim=0), 4000)
    assert found == pytest.approx(power, abs=0.12)  # 4,000 samples on either side
    assert (mix - q).abs().sum() < 0.1
    torch.testing.assert_close(mix.sum(), torch.ones(()).double())


def test_a_class_that_is_ruled_out_stays_so() -> None:
    training, reference = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.5, 0.5, 0.0]).double()
    priors = Tilts(reference, training.double()).priors(torch.tensor([-3.0, 0.0, 3.0]))
    assert (priors[2] == 0).all()
    assert torch.isfinite(priors).all()


def test_a_uniform_mix_has_no_direction() -> None:
    assert not has_direction(torch.full((7,), 1 / 7).double())
    assert has_direction(torch.tensor([0.5, 0.5 - 1e-3, 1e-3]).double())
    p = torch.full((5,), 0.2).double()
    source, target = draw(p, 500, p, seed=0), draw(tail(5), 500, p, seed=1)[0]
    found = estimate_prior(*source, target, p)
    assert found.power == 0.0
    assert torch.equal(found.tilted, p)
    assert estimate_prior(*source, target, p, training_prior=tail(5)).power > 0.5


def test_samples_fewer_than_classes_still_show_the_tilt() -> None:
    p, classes = tail(60, 100.0), 60
    q = p.flip(0)
    source = draw(torch.full_like(p, 1 / classes), 600, p, seed=0, spread=3.0)
    target = draw(q, 50, p, seed=1, spread=3.0)[0]
    found = estimate_prior(*source, target, p, interval=False)
    assert found.shifted
    assert (found.estimated - q).abs().sum() < 0.25 * (p - q).abs().sum()


def test_a_mix_outside_the_family_is_found_all_the_same() -> None:
    p = tail(6)
    q = p[torch.tensor([3, 0, 5, 1, 4, 2])]
    found = estimate_prior(*draw(p, 4000, p, seed=0), draw(q, 4000, p, seed=1)[0], p)
    assert (found.estimated - q).abs().sum() < 0.2 < (found.tilted - q).abs().sum()
    assert ((found.interval[:, 0] <= q) & (q <= found.interval[:, 1])).sum() >= 5


def strength_of(q: Tensor, p: Tensor, mix: Tensor) -> float:
    labelled = draw(torch.full_like(p, 1 / len(p)), 3000, p, seed=0)
    target = draw(q, 3000, p, seed=1)[0].softmax(dim=1)
    generator = torch.Generator().manual_seed(2)
    on_source, on_target = (resample_weights(3000, 50, target, generator) for _ in range(2))
    return Resampled(target, None, on_target).strength(mix, confusion_of(*labelled), on_source)


def test_strength_is_that_of_the_dirichlet_the_mix_was_drawn_from() -> None:
    p = torch.full((30,), 1 / 30).double()
    torch.manual_seed(0)
    found = []
    for concentration in (10.0, 100.0):
        drawn = torch.distributions.Dirichlet(p * concentration).sample((6,))
        found.append(sum(strength_of(q, p, p) for q in drawn) / 6)
        assert concentration / 2.5 < found[-1] < 2.5 * concentration  # six draws of 30 classes
    assert strength_of(p, p, p) > 10 * found[1]


def test_rows_in_place_of_a_copy_change_nothing() -> None:
    p = tail(5)
    logits, labels = draw(p, 300, p, seed=0)
    posteriors, rows = logits.softmax(dim=1), torch.arange(0, 300, 3)
    whole = Confusion(posteriors, labels[rows], posteriors, rows)
    copied = Confusion(posteriors[rows], labels[rows], posteriors[rows])
    torch.testing.assert_close(whole.mean(p), copied.mean(p))
    torch.testing.assert_close(whole.matrix, copied.matrix)
    torch.testing.assert_close(whole.mean(torch.eye(5).double()), copied.matrix)
    weights = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).double()
    both = torch.stack([p, p.flip(0)], dim=1)
    found = [confusion.mean_and_noise(both, weights) for confusion in (whole, copied)]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(em_prior(posteriors, p, indices=rows), em_prior(posteriors[rows], p))


@pytest.mark.parametrize("size", [300, 1])
def test_mean_and_noise_of_an_expectation_by_hand(size: int) -> None:
    """With many samples of a class the noise is that of its re-weighted mean; with one, of all."""
    p, generator = tail(4), torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(size)
    posteriors = torch.rand(len(labels), 4, generator=generator).double().softmax(dim=1)
    weights = torch.randn(len(labels), 3, generator=generator).double()
    confusion = Confusion(posteriors, labels, posteriors)
    priors = torch.stack([p, p.flip(0)], dim=1)
    means, noise = confusion.mean_and_noise(priors, weights)
    torch.testing.assert_close(means, confusion.matrix @ priors, atol=1e-12, rtol=0.0)
    for draw_weights, moved in zip(weights.T, noise.T, strict=True):
        expected = torch.zeros_like(p)
        for row, c, weight in zip(posteriors, labels, draw_weights, strict=True):
            centre = confusion.matrix[:, c] if size > 1 else confusion.matrix @ p
            inflated = (size / (size - 1)) ** 0.5 if size > 1 else confusion._within**0.5
            expected += p[c] / size * inflated * weight * (row - centre)
        torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0.0)


def test_classes_without_a_source_sample_take_what_the_model_expects() -> None:
    p = tail(4)
    logits, labels = draw(p, 400, p, seed=0)
    keep = labels != 3
    confusion = confusion_of(logits[keep], labels[keep])
    posteriors = logits[keep].softmax(dim=1)
    weights = posteriors[:, 3] / posteriors[:, 3].sum()
    torch.testing.assert_close(confusion.matrix[:, 3], posteriors.T @ weights)
    torch.testing.assert_close(confusion.mean(p), confusion.matrix @ p)


@pytest.mark.parametrize("dense", [2048, 5])
def test_the_table_estimates_what_estimate_prior_does(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.shift.estimation.estimator.DENSE", dense)
    p, classes = tail(10), 10
    train = ClassPrior((p * 3000).round().long().clamp(min=1))
    logits, labels = draw(torch.full_like(p, 0.1), 3000, p, seed=0)
    source = draw(p, 3000, p, seed=1)
    seen: list[Tensor] = []

    def score(adjusted: Tensor, _: Tensor) -> dict[str, float]:
        seen.append(adjusted.clone())
        return {}

    (column,) = protocol_table(
        logits, labels, train, p, score, source=source, columns=[("backward", 10.0)]
    )
    raw = seen[0]
    found = estimate_prior(*source, raw, p, training_prior=train, interval=False)
    torch.testing.assert_close(column.estimated, found.prior, atol=1e-9, rtol=0.0)
    difference = seen[1] - raw  # of the estimated mix; row by row it is the same
    torch.testing.assert_close(difference, (column.estimated / p).log().expand(len(raw), classes))
