"""Where the published formulations break: finite losses and gradients, or the documented rule."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from longtail import ClassPrior, losses

B, C, D = 8, 4, 16


def case(keys: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Well separated classes: each key is near its class's direction, queries on top of theirs."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.eye(C, D)
    key_labels = (torch.arange(keys) * C) // keys
    noise = 0.1 * torch.randn(keys, D, generator=generator)
    target = torch.arange(B) % C
    return {
        "query": centre[target].to(dtype).requires_grad_(),
        "key": normalize(centre[key_labels] + noise, dim=1).to(dtype).requires_grad_(),
        "key_labels": key_labels,
        "logits": torch.randn(B, C, generator=generator).to(dtype).requires_grad_(),
        "target": target,
        "log_prior": ClassPrior([60, 30, 8, 2]).log_prior,
    }


def gml(inputs: dict[str, Tensor], temperature: float, **settings: Tensor) -> tuple[Tensor, ...]:
    log_temperature = torch.tensor(temperature).log().requires_grad_()
    loss = losses.gml_loss(**inputs, log_temperature=log_temperature, **settings)
    leaves = (inputs["query"], inputs["key"], inputs["logits"], log_temperature)
    return loss, *torch.autograd.grad(loss, leaves)


def published_class_scores(
    query: Tensor, key: Tensor, key_labels: Tensor, num_classes: int, temperature: float
) -> Tensor:
    """As the published code: one maximum over all keys, exp, a one-hot product, log."""
    similarity = query @ key.T / temperature
    peak = similarity.amax(1, keepdim=True)
    one_hot = torch.nn.functional.one_hot(key_labels, num_classes).to(query)
    return (torch.exp(similarity - peak) @ one_hot / one_hot.sum(0)).log() + peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_temperature_keeps_far_classes_where_the_published_form_is_nan(
    dtype: torch.dtype,
) -> None:
    inputs = case(64, dtype)
    inputs["target"] = (inputs["target"] + 1) % C  # the far class is the one that counts
    scores = published_class_scores(
        inputs["query"].float(), inputs["key"].float(), inputs["key_labels"], C, 0.005
    )
    published = torch.nn.functional.cross_entropy(scores, inputs["target"])
    (gradient,) = torch.autograd.grad(published, inputs["query"])
    assert not published.isfinite() or not gradient.isfinite().all()

    loss, *gradients = gml(inputs, 0.005)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    exact = losses.class_scores(
        inputs["query"].double(), inputs["key"].double(), inputs["key_labels"], C, 0.005
    )
    ours = losses.class_scores(inputs["query"], inputs["key"], inputs["key_labels"], C, 0.005)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)


def test_many_keys() -> None:
    inputs = case(65_536)
    loss, *gradients = gml(inputs, 0.005)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    wide = {
        name: value.double() if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    exact = losses.gml_loss(**wide, log_temperature=torch.tensor(0.005).double().log())
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)


def test_logits_and_features_of_ten_thousand() -> None:
    inputs = case(64)
    for name in ("query", "logits"):
        inputs[name] = (inputs[name].detach() * 1e4).requires_grad_()
    loss, *gradients = gml(inputs, 0.1)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_float32_inside_an_autocast() -> None:
    inputs = case(64)
    expected = gml(inputs, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        value = gml(inputs, 0.05)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_an_image_whose_keys_are_all_its_class_has() -> None:
    inputs = case(8)
    inputs["key_labels"] = torch.tensor([0, 0, 1, 1, 1, 1, 3, 3])  # class 2 has no key at all
    key_index = torch.arange(8)
    query_index = torch.tensor([0, 99, 99, 99, 1, 99, 99, 99])
    # Query 0 and 4 (class 0) still have a key of class 0 in the other image's; now they do not.
    key_index[1] = 0
    query_index[4] = 99
    loss, *gradients = gml(inputs, 0.1, query_index=query_index, key_index=key_index)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)

    # The documented rule, by hand: rows of class 2 never count; row 0 not in the temperature's.
    exclude = query_index[:, None] == key_index
    total = torch.zeros(())
    for left_out, rows in ((None, [0, 1, 3, 4, 5, 7]), (exclude, [1, 3, 4, 5, 7])):
        scores = losses.class_scores(
            inputs["query"], inputs["key"], inputs["key_labels"], C, 0.1, exclude=left_out
        )
        scores = scores + inputs["log_prior"].float()
        nats = scores.logsumexp(1) - scores.gather(1, inputs["target"][:, None]).squeeze(1)
        total = total + nats[rows].mean()
    supervised = losses.logit_adjusted_loss(
        30 * inputs["logits"], inputs["target"], inputs["log_prior"]
    )
    torch.testing.assert_close(loss, total + supervised)


def test_no_key_counts() -> None:
    inputs = case(8)
    inputs["key_labels"] = torch.full((8,), -1)
    loss, *gradients = gml(inputs, 0.1)
    supervised = losses.logit_adjusted_loss(
        30 * inputs["logits"], inputs["target"], inputs["log_prior"]
    )
    torch.testing.assert_close(loss, supervised)
    assert gradients[0].abs().sum() == gradients[1].abs().sum() == gradients[3] == 0


def test_own_key_far_above_the_rest() -> None:
    # exp of the others' similarities relative to the own key's is 0 in float32: both sums survive.
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    key.requires_grad_()
    exclude = torch.tensor([[True, False]])
    scores = losses.class_scores(query, key, torch.tensor([0, 0]), 1, 0.005, exclude=exclude)
    torch.testing.assert_close(scores, torch.tensor([[-200.0]]))
    scores.sum().backward()
    torch.testing.assert_close(key.grad, torch.tensor([[0.0, 0.0], [200.0, 0.0]]))


@pytest.mark.parametrize("temperature", [0.005, 0.1])
def test_contrastive_losses_in_16_bits(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = normalize(torch.randn(B, 2, D, generator=generator), dim=2).bfloat16()
    features.requires_grad_()
    prototypes = torch.eye(C, D, dtype=torch.bfloat16, requires_grad=True)
    target, prior = torch.arange(B) % 3, ClassPrior([60, 30, 8, 2])  # class 3 is absent
    logits = (1e4 * torch.randn(B, C, generator=generator)).bfloat16().requires_grad_()
    flat = features.transpose(0, 1).flatten(0, 1)
    proco = losses.ProCoLoss(prior, width=D, temperature=temperature)
    proco.update(flat.detach(), target.repeat(2))
    values = {
        "bcl": losses.balanced_contrastive_loss(
            features, prototypes, target, temperature=temperature
        ),
        "supcon": losses.supervised_contrastive_loss(features, target, temperature=temperature),
        "paco": losses.PaCoLoss(prior, temperature=temperature)(flat, target.repeat(2), logits),
        "proco": proco(flat, target.repeat(2)),
    }
    for name, value in values.items():
        assert value.dtype == torch.float32, name
        gradients = torch.autograd.grad(value, (features, prototypes, logits), allow_unused=True)
        used = [gradient for gradient in gradients if gradient is not None]
        assert value.isfinite(), name
        assert used, name
        assert all(gradient.isfinite().all() for gradient in used), name
