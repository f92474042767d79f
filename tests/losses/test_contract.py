"""What every classification loss owes its callers; a new one in `losses.__all__` is covered too."""

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior, losses
from longtail.losses import ClassificationLoss

COUNTS = torch.tensor([90, 30, 7, 2, 1])
C = len(COUNTS)
CLASSES = [
    value
    for value in (getattr(losses, name) for name in losses.__all__)
    if isinstance(value, type)
    and issubclass(value, ClassificationLoss)
    and value is not ClassificationLoss
]
pytestmark = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def batch(seed: int = 0, size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, C, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(C, (size,), generator=generator)


def late(cls: type[ClassificationLoss], counts: Tensor = COUNTS) -> ClassificationLoss:
    """The loss near the end of the training, where schedules have set in."""
    loss = cls(ClassPrior(counts))
    loss.set_progress(0.99)
    return loss


def test_says_what_it_is(cls: type[ClassificationLoss]) -> None:
    assert cls.name.isidentifier()
    assert cls.name == cls.name.lower()
    assert cls.expresses in ("source", "uniform")
    assert (cls.__doc__ or "").splitlines()[0].endswith(".")
    assert len({other.name for other in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("progress", [0.0, 0.99])
def test_gradients_by_finite_differences(cls: type[ClassificationLoss], progress: float) -> None:
    logits, target = batch()
    loss = cls(ClassPrior(COUNTS))
    loss.set_progress(progress)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_buffers_may_be_float32(cls: type[ClassificationLoss]) -> None:
    """For devices without float64."""
    logits, target = batch()
    single = late(cls).float()
    assert all(value.dtype != torch.float64 for value in single.state_dict().values())
    expected = late(cls)(logits.float(), target)
    torch.testing.assert_close(single(logits.float(), target), expected, rtol=1e-5, atol=1e-6)


def test_order_of_the_batch_plays_no_part(cls: type[ClassificationLoss]) -> None:
    logits, target = batch()
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(1))
    loss = late(cls)
    torch.testing.assert_close(loss(logits[order], target[order]), loss(logits, target))


def test_names_of_classes_play_no_part(cls: type[ClassificationLoss]) -> None:
    logits, target = batch()
    order = torch.randperm(C, generator=torch.Generator().manual_seed(1))
    renamed = late(cls, COUNTS[order])(logits[:, order], order.argsort()[target])
    torch.testing.assert_close(renamed, late(cls)(logits, target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_logits_stay_finite(cls: type[ClassificationLoss], dtype: torch.dtype) -> None:
    logits, target = batch()
    logits = (logits.sign() * 1e4).to(dtype).requires_grad_()
    loss = late(cls)(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_class_absent_from_the_batch(cls: type[ClassificationLoss]) -> None:
    logits, _ = batch()
    logits.requires_grad_()
    loss = late(cls)(logits, torch.zeros(len(logits), dtype=torch.long))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_batch_of_one(cls: type[ClassificationLoss]) -> None:
    logits, target = batch(size=1)
    logits.requires_grad_()
    loss = late(cls)(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_whatever_the_autocast(
    cls: type[ClassificationLoss], dtype: torch.dtype
) -> None:
    logits, target = batch()
    logits = logits.to(dtype).requires_grad_()
    loss = late(cls)
    expected = loss(logits.detach().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert logits.grad.dtype == dtype


def test_state_dict_round_trip(cls: type[ClassificationLoss]) -> None:
    logits, target = batch()
    saved = late(cls).state_dict()
    other = late(cls, COUNTS.flip(0))
    other.load_state_dict(saved)
    assert torch.equal(other(logits, target), late(cls)(logits, target))


def test_equal_weights_change_nothing(cls: type[ClassificationLoss]) -> None:
    logits, target = batch()
    loss = late(cls)
    weighted = loss(logits, target, torch.full((len(target),), 3.0))
    torch.testing.assert_close(weighted, loss(logits, target))


def test_mean_is_weighted_by_sample(cls: type[ClassificationLoss]) -> None:
    logits, _ = batch()
    target = torch.full((len(logits),), 2)  # of one class, so that class weights cancel
    weight = torch.arange(len(target), dtype=torch.float64)
    loss = late(cls)
    nats = loss.per_sample(logits, target)
    difference = (weight * nats).sum() / weight.sum() - nats.mean()
    torch.testing.assert_close(
        loss(logits, target, weight) - loss(logits, target), difference, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("logits", "target"),
    [((4, C), (3,)), ((4, C + 1), (4,)), ((4,), (4,)), ((4, C), (4, C))],
)
def test_bad_shapes_show_both(
    cls: type[ClassificationLoss], logits: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=f"got .*{logits[0]}.* and .*{target[0]}"):
        cls(ClassPrior(COUNTS))(torch.zeros(logits), torch.zeros(target, dtype=torch.long))


def test_bad_weight_shows_both_shapes(cls: type[ClassificationLoss]) -> None:
    logits, target = batch()
    with pytest.raises(ValueError, match=r"weight of .* got shape \(3,\) for target \(12,\)"):
        cls(ClassPrior(COUNTS))(logits, target, torch.ones(3))


def test_compiles_without_graph_breaks(cls: type[ClassificationLoss]) -> None:
    torch.compiler.reset()
    logits, target = batch()
    loss = late(cls)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))
