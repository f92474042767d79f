"""Facts that tie the losses to each other and to what they are meant to do."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from longtail import ClassPrior, losses


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGET = torch.tensor([0, 1, 2, 2, 0, 1])
LOGITS = randn(6, 3)
PRIOR = ClassPrior([80, 15, 5])
UNIFORM = ClassPrior([7, 7, 7])


@pytest.mark.parametrize(
    "loss",
    [
        losses.CrossEntropyLoss(PRIOR),
        losses.FocalLoss(PRIOR, gamma=0.0),
        losses.LogitAdjustedLoss(PRIOR, tau=0.0),
        losses.LogitAdjustedLoss(UNIFORM, tau=1.5),
        losses.ReweightedLoss(UNIFORM),
        losses.ClassBalancedLoss(PRIOR, beta=0.0),
        losses.LDAMLoss(PRIOR, max_margin=0.0),
        losses.LADELoss(UNIFORM, alpha=0.0),
        losses.DBMLoss(UNIFORM, max_margin=0.0),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_reduces_to_cross_entropy(loss: losses.ClassificationLoss) -> None:
    torch.testing.assert_close(loss(LOGITS, TARGET), cross_entropy(LOGITS, TARGET))


def test_reweighted_is_torchs_weighted_cross_entropy() -> None:
    weight = 1 / PRIOR.counts.double()
    expected = cross_entropy(LOGITS, TARGET, weight=weight)
    torch.testing.assert_close(losses.ReweightedLoss(PRIOR)(LOGITS, TARGET), expected)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CrossEntropyLoss(PRIOR),
        losses.LogitAdjustedLoss(PRIOR),
        losses.ReweightedLoss(PRIOR),
        losses.LADELoss(PRIOR, remine_lambda=0.0),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_raw_logits_express_the_prior_that_the_loss_claims(
    loss: losses.ClassificationLoss,
) -> None:
    # Images that tell nothing, in the proportions of the source: the best logits are the prior.
    target = torch.arange(3).repeat_interleave(PRIOR.counts)
    best = PRIOR.log_prior if loss.expresses == "source" else torch.zeros(3, dtype=torch.float64)
    logits = best.clone().requires_grad_()
    loss(logits.expand(len(target), 3), target).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-8)


def test_ldam_defers_its_weights() -> None:
    loss = losses.LDAMLoss(PRIOR, deferred=0.5)
    assert loss.class_weight() is None
    loss.set_progress(0.49)
    assert loss.class_weight() is None
    loss.set_progress(0.5)
    assert torch.equal(loss.class_weight(), losses.effective_number_weight(PRIOR.counts))
    never = losses.LDAMLoss(PRIOR, deferred=1.0)
    never.set_progress(1.0)
    assert never.class_weight() is None


def test_the_margins_of_dbm_are_inverse_to_the_counts() -> None:
    margin = losses.DBMLoss(PRIOR, max_margin=0.1).margin
    torch.testing.assert_close(margin, 0.1 * 5 / PRIOR.counts.double())


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.5, -40.0, 1 - 1e-9])
def test_dbm_has_a_gradient_at_the_ends_of_the_angle_and_beyond(cosine: float) -> None:
    logits = torch.tensor([[30 * cosine, 40.0, -50.0]], dtype=torch.float64, requires_grad=True)
    loss = losses.DBMLoss(PRIOR)(logits, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert -1 <= logits.grad[0, 0] < 0


def test_distillation_from_an_equal_teacher_is_zero() -> None:
    value = losses.distillation_loss(LOGITS, LOGITS + 3.0, temperature=4.0)
    torch.testing.assert_close(value, torch.zeros_like(value))


def test_distillation_takes_a_class_that_the_teacher_rules_out() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0, -torch.inf]])
    value = losses.distillation_loss(logits, teacher, temperature=1.0)
    value.backward()
    torch.testing.assert_close(value.detach(), torch.tensor(math.log(3 / 2)))
    assert logits.grad.isfinite().all()


def test_gml_with_one_key_a_class_is_a_cosine_classifier() -> None:
    query, key = normalize(randn(6, 4), dim=1), normalize(randn(3, 4, seed=1), dim=1)
    order = torch.tensor([2, 0, 1])
    scores = losses.class_scores(query, key[order], order, 3, temperature=0.05)
    torch.testing.assert_close(scores, query @ key.T / 0.05)
    gml = losses.gml_loss(
        query,
        key,
        torch.arange(3),
        query @ key.T,
        TARGET,
        PRIOR.log_prior,
        torch.tensor(1 / 20.0).log(),
        beta=0.5,
        gamma=0.0,
        logit_scale=20.0,
    )
    classifier = losses.logit_adjusted_loss(20.0 * query @ key.T, TARGET, PRIOR.log_prior)
    torch.testing.assert_close(gml, classifier, rtol=1e-6, atol=0)  # float32 log_temperature


def test_gml_gradients_stop_where_the_method_says() -> None:
    query = normalize(randn(6, 4), dim=1).requires_grad_()
    key = normalize(randn(9, 4, seed=1), dim=1).requires_grad_()
    labels, index = torch.arange(9) % 3, torch.arange(9)
    log_temperature = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)

    def gradients(query_index: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        loss = losses.gml_loss(
            query,
            key,
            labels,
            LOGITS,
            TARGET,
            PRIOR.log_prior,
            log_temperature,
            query_index=query_index,
            key_index=None if query_index is None else index,
        )
        return torch.autograd.grad(loss, (query, key, log_temperature))

    own, strangers = gradients(torch.arange(6)), gradients(None)
    # An image's own key stays in what trains the network, and is left out of what trains T.
    torch.testing.assert_close(own[:2], strangers[:2])
    assert not torch.isclose(own[2], strangers[2])
    scores = losses.class_scores(query, key, labels, 3, log_temperature.detach().exp())
    alone = torch.autograd.grad(cross_entropy(scores + PRIOR.log_prior, TARGET), (query, key))
    torch.testing.assert_close(own[:2], alone)


def test_class_score_is_a_mixture_likelihood_up_to_a_constant() -> None:
    temperature, keys = 0.3, normalize(randn(5, 3), dim=1)
    concentration = 1 / temperature
    # In three dimensions the normaliser of a von Mises-Fisher density is kappa / (4 pi sinh kappa).
    log_normaliser = math.log(concentration / (4 * math.pi * math.sinh(concentration)))
    # A fine grid on the sphere: the mixture's density integrates to 1.
    height = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    angle = torch.arange(200, dtype=torch.float64) * (2 * math.pi / 200)
    ring = (1 - height**2).sqrt()
    points = torch.stack(
        [
            ring[:, None] * angle.cos(),
            ring[:, None] * angle.sin(),
            height[:, None].expand(400, 200),
        ],
        dim=2,
    ).reshape(-1, 3)
    scores = losses.class_scores(points, keys, torch.zeros(5).long(), 1, temperature)
    integral = (scores + log_normaliser).exp().mean() * 4 * math.pi
    assert abs(integral.item() - 1) < 1e-4  # the grid's own error


def test_balanced_contrastive_is_least_where_classes_form_a_simplex() -> None:
    num_classes, each, temperature = 4, 3, 0.5
    target = torch.arange(num_classes).repeat(each)
    features = randn(len(target), 1, num_classes).requires_grad_()
    prototypes = randn(num_classes, num_classes, seed=1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [features, prototypes], max_iter=400, line_search_fn="strong_wolfe"
    )

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = losses.balanced_contrastive_loss(
            normalize(features, dim=2),
            normalize(prototypes, dim=1),
            target,
            temperature=temperature,
        )
        loss.backward()
        return loss

    optimizer.step(step)
    units = normalize(features.detach().squeeze(1), dim=1)
    means = torch.stack([units[target == c].mean(0) for c in range(num_classes)])
    corners = torch.full((num_classes, num_classes), -1 / (num_classes - 1)).double()
    corners.fill_diagonal_(1.0)
    # Found by an optimiser: hence 1e-3.
    torch.testing.assert_close(means @ means.T, corners, rtol=0, atol=1e-3)
    torch.testing.assert_close(normalize(prototypes.detach(), dim=1), means, rtol=0, atol=1e-3)


def test_supervised_contrastive_of_two_views_is_simclr_when_all_classes_differ() -> None:
    features = normalize(randn(4, 2, 3), dim=2)
    value = losses.supervised_contrastive_loss(features, torch.arange(4), temperature=0.2)
    flat = features.flatten(0, 1)
    similarity = (flat @ flat.T / 0.2).fill_diagonal_(-torch.inf)
    other_view = torch.arange(8) ^ 1
    torch.testing.assert_close(value, cross_entropy(similarity, other_view))


def test_paco_without_features_is_logit_adjustment() -> None:
    features, labels = normalize(randn(12, 4), dim=1), TARGET.repeat(2)
    value = losses.paco_loss(
        features,
        labels,
        LOGITS,
        PRIOR.log_prior,
        queue_size=0,
        alpha=0.0,
        beta=1.0,
        gamma=0.0,
        temperature=0.1,
    )
    expected = losses.logit_adjusted_loss(LOGITS, TARGET, PRIOR.log_prior)
    torch.testing.assert_close(value, expected, rtol=1e-7, atol=0)  # 1e-9 on each probability


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logits_after_adjustment_by_tau_express_the_power_one_minus_tau(tau: float) -> None:
    prior = ClassPrior([90, 9, 1])
    # Two inputs of the same likelihood under every class: the posterior is the source prior, and
    # the loss is least where softmax(logits + tau log prior) equals it.
    loss = losses.LogitAdjustedLoss(prior, tau=tau)
    expressed = {"source": prior.probabilities.tolist(), "uniform": [1 / 3] * 3}
    mass = loss.expresses if isinstance(loss.expresses, list) else expressed[loss.expresses]
    logits = torch.tensor(mass, dtype=torch.float64).log()
    posterior = torch.softmax(logits + tau * prior.log_prior, 0)
    torch.testing.assert_close(posterior, prior.probabilities)


def test_logits_express_the_prior_times_the_class_weights() -> None:
    prior = ClassPrior([90, 10])
    for loss in (
        losses.ClassBalancedLoss(prior, beta=0.0),
        losses.LDAMLoss(prior, beta=0.0),
        losses.LDAMLoss(prior, deferred=1.0),
    ):
        assert loss.expresses == "source"
    assert losses.ReweightedLoss(prior).expresses == "uniform"
    for kind in (losses.ClassBalancedLoss, losses.LDAMLoss):
        loss = kind(prior, beta=0.99)
        mass = prior.probabilities * loss.weights
        assert loss.expresses == pytest.approx((mass / mass.sum()).tolist())
        assert 0.5 < loss.expresses[0] < 0.9
