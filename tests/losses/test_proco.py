"""ProCo: the Bessel function, the expectation in closed form, the running means."""

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch.nn.functional import normalize

from longtail import ClassPrior, losses
from longtail.losses.log_bessel import log_bessel

POINTS = [1e-3, 0.1, 1.0, 5.0, 20.0, 100.0, 1e3, 1e5]


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 7.5, 15.0, 63.0, 64.0])
def test_log_bessel_agrees_with_scipy(order: float) -> None:
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    value = log_bessel(order, x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    here, above = ive(order, np.array(POINTS)), ive(order + 1, np.array(POINTS))
    known = above > 1e-290  # scipy underflows below
    expected = np.log(here[known]) + np.array(POINTS)[known] - order * np.log(POINTS)[known]
    torch.testing.assert_close(value[known], torch.tensor(expected), rtol=1e-11, atol=1e-11)
    ratio = torch.tensor(above[known] / here[known])
    torch.testing.assert_close(slope[known], ratio, rtol=1e-9, atol=0)


@pytest.mark.parametrize("order", [0.0, 2.5, 31.0, 1023.0])
def test_log_bessel_gradient_by_finite_differences(order: float) -> None:
    x = torch.tensor([0.3, 4.0, 50.0, 700.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_bessel(order, x), x)


@pytest.mark.parametrize("order", [0.0, 31.0, 1023.0])
def test_log_bessel_at_its_ends(order: float) -> None:
    x = torch.tensor([0.0, 1e8], dtype=torch.float64, requires_grad=True)
    value = log_bessel(order, x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    at_zero = -order * np.log(2) - torch.lgamma(torch.tensor(order + 1, dtype=torch.float64))
    torch.testing.assert_close(value[0], at_zero, rtol=1e-11, atol=1e-11)
    assert value.isfinite().all()
    assert slope[0] == 0
    assert 0 < slope[1] < 1


def test_scores_are_the_expectation_that_sampling_estimates() -> None:
    # Rejection-free sampling in three dimensions: the height along the mean has an inverse CDF.
    generator = torch.Generator().manual_seed(0)
    width, temperature, n = 3, 0.7, 400_000
    mean = torch.tensor([[0.0, 0.0, 0.6]], dtype=torch.float64)
    kappa = width * 0.6 / (1 - 0.6**2)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    height = 1 + torch.log(u + (1 - u) * np.exp(-2 * kappa)) / kappa
    angle = 2 * np.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    ring = (1 - height**2).sqrt()
    samples = torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)
    feature = normalize(torch.tensor([[1.0, 2.0, -0.5]], dtype=torch.float64), dim=1)
    expected = torch.exp(samples @ feature.T / temperature).mean().log()
    score = losses.vmf_scores(feature, mean, temperature=temperature)
    assert abs(score.item() - expected.item()) < 5e-3  # the sampling error


@pytest.mark.parametrize("norm", [0.0, 1e-4, 0.5, 0.999, 1.0])
def test_scores_and_gradients_for_every_concentration(norm: float) -> None:
    mean = norm * normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    features = torch.cat([normalize(mean, dim=1), -normalize(mean, dim=1)]).double()
    features.requires_grad_()
    scores = losses.vmf_scores(features, mean, temperature=0.05)
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    assert scores.isfinite().all()
    assert gradient.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda x: losses.vmf_scores(x, mean, temperature=0.5), features, atol=1e-4
    )


def test_a_sure_class_scores_like_a_single_key() -> None:
    key = normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    features = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    scores = losses.vmf_scores(features, key, temperature=0.5)
    expected = losses.class_scores(features, key, torch.arange(3), 3, 0.5).double()
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)  # concentration is 1e5


def test_means_of_this_epoch_and_the_last() -> None:
    loss = losses.ProCoLoss(ClassPrior([2, 1]), width=2)
    assert loss.mean.tolist() == [[0, 0], [0, 0]]
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    loss.update(x, y)
    assert loss.mean.tolist() == [[0.5, 0.5], [0, 1]]
    loss.next_epoch()
    assert loss.mean.tolist() == [[0.5, 0.5], [0, 1]]
    loss.update(x[:1], torch.tensor([1]))
    assert loss.mean.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    loss.next_epoch()  # the first epoch is forgotten; class 0 was not seen in the second
    assert loss.mean.tolist() == [[0, 0], [1, 0]]
    other = losses.ProCoLoss(ClassPrior([2, 1]), width=2)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.mean, loss.mean)


def test_loss_is_logit_adjusted_over_the_scores() -> None:
    features = normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    target, prior = torch.arange(6) % 3, ClassPrior([5, 3, 1])
    loss = losses.ProCoLoss(prior, width=4, temperature=0.2)
    loss.update(features, target)
    scores = losses.vmf_scores(features, loss.mean, temperature=0.2)
    expected = losses.logit_adjusted_loss(scores, target, prior.log_prior)
    torch.testing.assert_close(loss(features, target).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_16_bits_still_counts_in_32(dtype: torch.dtype) -> None:
    features = normalize(torch.ones(600, 4), dim=1)
    loss = losses.ProCoLoss(ClassPrior([1, 1]), width=4)
    loss.update(features[:300], torch.ones(300, dtype=torch.long))
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4), loss]).to(dtype)
    assert model[0].weight.dtype == dtype
    for row in features[:300].split(100):
        loss.update(row.to(dtype), torch.ones(100, dtype=torch.long))
    assert loss.count.tolist() == [[0, 600], [0, 600]]
    assert loss.mean.norm(dim=1).max() < 1 + 1e-2  # features in bfloat16 have two digits
    assert {"total", "count", "log_prior"} == set(loss.state_dict())
    assert loss.double().total.dtype == torch.float64
    assert loss.to(dtype).total.dtype == torch.float64
    assert loss(features[:2].to(dtype), torch.tensor([0, 1])).isfinite()
