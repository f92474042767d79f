"""`adjust` and `PriorAdjusted`: exact under any prior, identity under the one expressed."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from longtail.prior import ClassPrior
from longtail.shift import PriorAdjusted, adjust


@st.composite
def priors(draw: st.DrawFn, zeros: bool = False) -> torch.Tensor:
    low = 0 if zeros else 1
    masses = draw(st.lists(st.integers(low, 10**6), min_size=2, max_size=8).filter(any))
    values = torch.tensor(masses, dtype=torch.float64)
    return values / values.sum()


def logits_for(classes: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(classes)
    return (5 * torch.randn(7, classes, generator=generator, dtype=torch.float64)).to(dtype)


@settings(max_examples=50, deadline=None)
@given(priors(zeros=True))
@pytest.mark.filterwarnings("ignore:target of adjust is 0")
def test_prior_already_expressed_changes_nothing(prior: torch.Tensor) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        logits = logits_for(len(prior), dtype)
        logits[0, :2] = torch.tensor([0.0, -0.0])
        after = adjust(logits, prior, prior)
        allowed = prior > 0
        bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[logits.element_size()]
        assert torch.equal(after[:, allowed].view(bits), logits[:, allowed].view(bits))
        assert torch.equal(
            adjust(logits.nan_to_num(), prior, prior) == -torch.inf, (~allowed).expand(7, -1)
        )


@settings(max_examples=50, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore:target of adjust is 0")
def test_posteriors_follow_bayes_rule(data: st.DataObject) -> None:
    p = data.draw(priors())
    q = data.draw(
        priors(zeros=True).filter(lambda q: len(q) == len(p)) if len(p) < 4 else st.just(p.flip(0))
    )
    logits = logits_for(len(p))
    got = adjust(logits, p, q).softmax(dim=1)
    by_hand = np.empty(logits.shape)
    for i, row in enumerate(logits.softmax(dim=1).tolist()):
        products = [r * b / a for r, a, b in zip(row, p.tolist(), q.tolist(), strict=True)]
        by_hand[i] = [value / sum(products) for value in products]
    np.testing.assert_allclose(got.numpy(), by_hand, rtol=1e-9, atol=1e-12)
    assert (got[:, q == 0] == 0).all()


def test_there_and_back() -> None:
    p, q = [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]
    logits = logits_for(3)
    torch.testing.assert_close(adjust(adjust(logits, p, q), q, p), logits)


def test_class_prior_vector_list_and_array_are_the_same() -> None:
    prior, logits = ClassPrior([6, 3, 1]), logits_for(3)
    expected = adjust(logits, prior, [0.2, 0.3, 0.5])
    for p in (prior.probabilities, prior.probabilities.numpy(), prior.probabilities.tolist()):
        assert torch.equal(adjust(logits, p, np.array([0.2, 0.3, 0.5])), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_give_arrays(dtype: type) -> None:
    logits = logits_for(3).numpy().astype(dtype)
    logits.flags.writeable = False
    got = adjust(logits, [0.7, 0.2, 0.1], [0.1, 0.1, 0.8])
    assert isinstance(got, np.ndarray)
    assert got.dtype == dtype
    tensor = adjust(torch.tensor(logits), [0.7, 0.2, 0.1], [0.1, 0.1, 0.8])
    np.testing.assert_array_equal(got, tensor.numpy())


def test_16_bit_logits_are_added_in_float32() -> None:
    # In bfloat16 the offset log(0.501 / 0.499) = 0.004 would itself be rounded before the sum.
    logits = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)
    p, q = [0.5, 0.5], [0.4, 0.6]
    wide = adjust(logits.float(), p, q)
    got = adjust(logits, p, q)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wide.to(torch.bfloat16))


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_in_place_makes_no_copy(kind: str) -> None:
    logits = logits_for(3) if kind == "tensor" else logits_for(3).numpy().copy()
    expected = adjust(logits, [0.7, 0.2, 0.1], [0.1, 0.1, 0.8])
    got = adjust(logits, [0.7, 0.2, 0.1], [0.1, 0.1, 0.8], out=logits)
    assert got is logits
    np.testing.assert_array_equal(np.asarray(logits), np.asarray(expected))


def test_gradient_passes() -> None:
    logits = logits_for(3).requires_grad_()
    adjust(logits, [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]).square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_impossible_class_warns_and_gets_nothing() -> None:
    with pytest.warns(UserWarning, match="target of adjust is 0 for 1 of 2 classes"):
        got = adjust(torch.zeros(1, 2), [0.5, 0.5], [1.0, 0.0])
    assert got.softmax(dim=1).tolist() == [[1.0, 0.0]]
    with pytest.warns(UserWarning, match="target of adjust is 0"):
        got = adjust(torch.zeros(1, 2), [1.0, 0.0], [1.0, 0.0])
    assert got.tolist() == [[0.0, -torch.inf]]


@pytest.mark.parametrize(
    ("expressed", "target", "message"),
    [
        ([1.0, 0.0], [0.5, 0.5], "expressed of adjust must be above 0 .* first class 1"),
        ([0.5, 0.5], [0.6, 0.5], "target of adjust must sum to 1 within 1e-06, got 1.1"),
        ([0.5, 0.5], [1.5, -0.5], r"target of adjust must hold .* got -0.5 for class 1"),
        ([0.5, 0.5], [0.5, float("nan")], "target of adjust must hold .* got nan for class 1"),
        ([0.2, 0.3, 0.5], [0.5, 0.5], "expressed of adjust must have 2 classes, got 3"),
        ([0.5, 0.5], [0.2, 0.3, 0.5], "target of adjust must have 2 classes, got 3"),
        ([0.5, 0.5], "uniform", "target of adjust must be .* got 'uniform'; resolve_prior"),
        ([0.5, 0.5], [[0.5, 0.5]], r"target of adjust must be a non-empty vector .* \(1, 2\)"),
    ],
)
def test_bad_priors(expressed: object, target: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adjust(torch.zeros(1, 2), expressed, target)  # type: ignore[arg-type]


def test_sum_within_a_millionth_is_taken() -> None:
    adjust(torch.zeros(1, 2), [0.5, 0.5 + 9e-7], [0.5, 0.5])
    with pytest.raises(ValueError, match="sum to 1"):
        adjust(torch.zeros(1, 2), [0.5, 0.5 + 2e-6], [0.5, 0.5])


def test_bad_logits() -> None:
    with pytest.raises(ValueError, match=r"floating-point, got torch\.int64"):
        adjust(torch.zeros(1, 2, dtype=torch.int64), [0.5, 0.5], [0.4, 0.6])
    with pytest.raises(ValueError, match="floating-point, got int64"):
        adjust(np.zeros((1, 2), dtype=np.int64), [0.5, 0.5], [0.4, 0.6])  # type: ignore[type-var]
    with pytest.raises(ValueError, match="floating-point, got int64"):
        adjust([[0, 0]], [0.5, 0.5], [0.4, 0.6])
    with pytest.raises(ValueError, match="out of adjust"):
        adjust(torch.zeros(1, 2), [0.5, 0.5], [0.4, 0.6], out=torch.zeros(2, 2))


def test_wraps_modules_and_functions() -> None:
    p, q = ClassPrior([9, 1]), [0.5, 0.5]
    linear, inputs = nn.Linear(3, 2), torch.ones(4, 3)
    expected = adjust(linear(inputs), p, q)
    assert torch.equal(PriorAdjusted(linear, p, q)(inputs), expected)
    assert torch.equal(PriorAdjusted(linear.forward, p, q)(inputs), expected)
    model = PriorAdjusted(linear, p)
    assert torch.equal(model(inputs), linear(inputs))
    model.target = q
    assert torch.equal(model(inputs), expected)
    model.target = None
    assert torch.equal(model(inputs), linear(inputs))
    assert {name for name, _ in model.named_parameters()} == {"model.weight", "model.bias"}


def test_state_dict_keeps_the_priors_in_full() -> None:
    p, q = ClassPrior([9, 1, 3]), [0.2, 0.3, 0.5]
    model = PriorAdjusted(nn.Linear(3, 3), p, q).half()
    fresh = PriorAdjusted(nn.Linear(3, 3), ClassPrior([1, 1, 1])).half()
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(fresh.expressed, p.probabilities)
    assert torch.equal(fresh.target, torch.tensor(q, dtype=torch.float64))
    inputs = torch.ones(2, 3, dtype=torch.float16)
    assert torch.equal(fresh(inputs), model(inputs))
    with pytest.raises(RuntimeError, match="extra_state"):
        fresh.load_state_dict({k: v for k, v in model.state_dict().items() if "extra" not in k})


def test_wrong_number_of_classes_is_named() -> None:
    model = PriorAdjusted(nn.Identity(), [0.5, 0.5])
    with pytest.raises(ValueError, match=r"must give 2 classes, .* got shape \(1, 3\)"):
        model(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="target of adjust must have 2 classes"):
        model.target = [0.2, 0.3, 0.5]
