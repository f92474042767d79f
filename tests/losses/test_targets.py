"""The same rules of targets and batches for every loss, function and module."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy, normalize

from longtail import ClassPrior, losses
from longtail.losses import ClassificationLoss
from longtail.memory import ClassQueue, FifoQueue

B, C, D = 6, 4, 3
PRIOR = ClassPrior([9, 5, 2, 1])
LOG_PRIOR = PRIOR.log_prior
Loss = Callable[[Tensor, Tensor], Tensor]


def made(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(*shape: int) -> Tensor:
    return normalize(made(torch.Generator().manual_seed(1), *shape), dim=-1)


KEYS, PROTOTYPES, QUEUED, WEIGHT = unit(8, D), unit(C, D), unit(5, D), unit(D, C)
KEY_LABELS, QUEUE_LABELS = torch.arange(8) % C, torch.tensor([0, 1, -1, 3, 0])
GML, PACO = losses.GMLLoss(PRIOR, alpha=0.5), losses.PaCoLoss(PRIOR)


def gml(x: Tensor, target: Tensor) -> Tensor:
    logits = x @ WEIGHT
    return GML(x, KEYS, KEY_LABELS, logits, target, teacher_logits=logits.detach() + 0.3)


def paco(x: Tensor, target: Tensor) -> Tensor:
    features = torch.cat([x, x.flip(1), QUEUED])
    return PACO(features, torch.cat([target, target, QUEUE_LABELS]), x @ WEIGHT)


def proco(x: Tensor, target: Tensor) -> Tensor:
    return losses.proco_loss(x, target, 0.8 * PROTOTYPES, LOG_PRIOR, temperature=0.5)


def views(loss: Loss) -> Loss:
    return lambda x, target: loss(torch.stack([x, x.flip(1)], dim=1), target)


ON_LOGITS: dict[str, Loss] = {
    **{
        cls.__name__: cls(PRIOR)
        for cls in (getattr(losses, name) for name in losses.__all__)
        if isinstance(cls, type) and issubclass(cls, ClassificationLoss)
        if cls is not ClassificationLoss
    },
    "focal_loss": losses.focal_loss,
    "ldam_loss": lambda x, y: losses.ldam_loss(x, y, PRIOR.counts),
    "dbm_loss": lambda x, y: losses.dbm_loss(x, y, PRIOR.counts),
    "logit_adjusted_loss": lambda x, y: losses.logit_adjusted_loss(x, y, LOG_PRIOR),
    "lade_regularizer": lambda x, y: losses.lade_regularizer(x, y, LOG_PRIOR, remine_lambda=0.1),
}
ON_FEATURES: dict[str, Loss] = {
    "GMLLoss": gml,
    "PaCoLoss": paco,
    "ProCoLoss": proco,
    "BalancedContrastiveLoss": views(
        lambda x, y: losses.BalancedContrastiveLoss(temperature=0.5)(x, PROTOTYPES, y)
    ),
    "SupervisedContrastiveLoss": views(losses.SupervisedContrastiveLoss(temperature=0.5)),
}
ALL = {**ON_LOGITS, **ON_FEATURES}
TARGET = torch.tensor([0, 1, 2, 0, 1, 3])
by_name = pytest.mark.parametrize("name", ALL)


def batch(name: str, size: int = B) -> Tensor:
    x = made(torch.Generator().manual_seed(0), size, C if name in ON_LOGITS else D)
    return (x if name in ON_LOGITS else normalize(x, dim=1)).requires_grad_()


def value_and_gradient(loss: Loss, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(x, target)
    return value.detach(), torch.autograd.grad(value, x)[0]


@by_name
def test_rows_to_ignore_do_not_count(name: str) -> None:
    x = batch(name)
    kept = [0, 1, 3, 5]
    target = TARGET.clone()
    target[[2, 4]] = -100
    value, gradient = value_and_gradient(ALL[name], x, target)
    alone, gradient_alone = value_and_gradient(
        ALL[name], x[kept].detach().requires_grad_(), TARGET[kept]
    )
    torch.testing.assert_close(value, alone)
    torch.testing.assert_close(gradient[kept], gradient_alone)
    assert gradient[[2, 4]].abs().max() == 0


def test_ignored_rows_are_torchs() -> None:
    x, target = batch("CrossEntropyLoss"), torch.tensor([0, -100, 2, -100, 1, 3])
    torch.testing.assert_close(losses.CrossEntropyLoss(PRIOR)(x, target), cross_entropy(x, target))
    weighted = losses.ReweightedLoss(PRIOR)
    expected = cross_entropy(x, target, weighted.class_weight())
    torch.testing.assert_close(weighted(x, target), expected)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("DBMLoss", "dbm_loss"),
        ("FocalLoss", "focal_loss"),
        ("LogitAdjustedLoss", "logit_adjusted_loss"),
    ],
)
def test_module_and_function_agree(module: str, function: str) -> None:
    target = torch.tensor([0, -100, 2, -100, 1, 3])
    x = batch(module)
    assert torch.equal(ALL[module](x, target), ALL[function](x, target))


@by_name
@pytest.mark.parametrize("size", [0, B])
def test_a_batch_without_a_row_that_counts_is_0_with_a_gradient_of_0(name: str, size: int) -> None:
    x = batch(name, size)
    target = torch.full((size,), -100)
    value, gradient = value_and_gradient(ALL[name], x, target)
    assert value == 0
    assert gradient.shape == x.shape
    assert gradient.count_nonzero() == 0
    assert gradient.isfinite().all()


def test_distillation_of_an_empty_batch_is_0() -> None:
    logits = torch.zeros(0, C, requires_grad=True)
    value = losses.distillation_loss(logits, torch.zeros(0, C))
    value.backward()
    assert value == 0


@by_name
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_is_accepted(name: str, dtype: torch.dtype) -> None:
    x = batch(name)
    expected = ALL[name](x, TARGET)
    if name == "PaCoLoss" and dtype == torch.uint8:  # its queue has labels of -1
        return
    assert torch.equal(ALL[name](x, TARGET.to(dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_of_the_images_is_accepted(dtype: torch.dtype) -> None:
    x, index, keys = batch("GMLLoss"), torch.arange(B), torch.arange(8) % 5
    given = (x, KEYS, KEY_LABELS, x @ WEIGHT, TARGET)
    loss = losses.GMLLoss(PRIOR)
    found = loss(*given, query_index=index.to(dtype), key_index=keys.to(dtype))
    assert torch.equal(found, loss(*given, query_index=index, key_index=keys))
    queue = ClassQueue(PRIOR, size=8, width=D, base=1)
    queue.enqueue(x[:3], TARGET[:3], index[:3].to(dtype))
    assert sorted(queue.index.tolist()) == [-1] * 5 + [0, 1, 2]


@by_name
@pytest.mark.parametrize(
    ("target", "got"),
    [
        (TARGET.float(), r"integer type, got torch\.float32"),
        (TARGET.bool(), r"integer type, got torch\.bool"),
        (torch.tensor([0, 1, 2, 0, 1, -1]), r"got \[-1\b"),
        (torch.tensor([0, 1, 2, 0, 1, -101]), r"got \[-101\b"),
    ],
    ids=["float", "bool", "negative", "below -100"],
)
def test_other_targets_are_refused_by_name(name: str, target: Tensor, got: str) -> None:
    if name == "PaCoLoss" and target.dtype == torch.bool:
        return  # which a queue's labels make integers
    with pytest.raises(ValueError, match=rf"(target|labels) of \w+ must be .*{got}"):
        ALL[name](batch(name), target)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"SupervisedContrastiveLoss"}))
def test_a_class_that_does_not_exist_is_refused(name: str) -> None:
    target = torch.tensor([0, 1, 2, 0, 1, C])
    with pytest.raises(ValueError, match=rf"must be in \[0, {C}\), or -100 .*, got \[{C}\b"):
        ALL[name](batch(name), target)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"PaCoLoss"}))
@pytest.mark.parametrize("given", [TARGET.tolist(), TARGET.numpy()], ids=["list", "array"])
def test_lists_and_arrays_are_refused_by_name(name: str, given: object) -> None:
    kind = type(given).__name__
    with pytest.raises(ValueError, match=rf"target of \w+ must be a torch.Tensor, got {kind}"):
        ALL[name](batch(name), given)  # type: ignore[arg-type]


def test_other_arguments_are_refused_by_name() -> None:
    x, features = batch("CrossEntropyLoss"), unit(2 * B, D)
    labels = TARGET.repeat(2)
    for call, message in (
        (lambda: losses.CrossEntropyLoss(PRIOR)(x.tolist(), TARGET), "logits .* got list"),
        (lambda: losses.CrossEntropyLoss(PRIOR)(x, TARGET, [1.0] * B), "weight .* got list"),
        (lambda: losses.PaCoLoss(PRIOR)(features, labels.tolist(), x), "labels .* got list"),
        (lambda: losses.PaCoLoss(PRIOR)(features.numpy(), labels, x), "features .* got ndarray"),
        (lambda: losses.class_scores(x, x, TARGET.float(), C, 0.1), "key_labels .* torch.float32"),
        (lambda: losses.class_scores(x, [x], TARGET, C, 0.1), "key of class_scores .* got list"),
        (lambda: losses.distillation_loss(x, x.tolist()), "teacher_logits .* got list"),
        (lambda: losses.ProCoLoss(PRIOR, width=D).update(features[:B], [0]), "target .* got list"),
        (
            lambda: ClassQueue(PRIOR, size=8, width=D, base=1).enqueue(
                features, labels - 1, labels
            ),
            r"labels of ClassQueue.enqueue must be in \[0, 4\), got \[-1, -1, -1, -1\]",
        ),
        (
            lambda: FifoQueue(size=8, width=D).enqueue(features, labels.float()),
            "labels of FifoQueue.enqueue must be class indices of an integer type",
        ),
        (
            lambda: ClassQueue(PRIOR, size=8, width=D, base=1).enqueue(
                features, labels, labels.float()
            ),
            "index of ClassQueue.enqueue must be image indices of an integer type",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@by_name
def test_another_device_is_refused_by_name(name: str) -> None:
    if name == "PaCoLoss":
        return  # which joins them before
    with pytest.raises(ValueError, match=r"target of \w+ must be on the device .* cpu, got meta"):
        ALL[name](batch(name), TARGET.to("meta"))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"GMLLoss"}))
def test_second_derivatives_by_finite_differences(name: str) -> None:
    target = torch.tensor([0, 1, 2, 0, -100, 3])
    assert torch.autograd.gradgradcheck(lambda x: ALL[name](x, target), batch(name), atol=1e-4)


def test_second_derivatives_of_the_prototypes() -> None:
    features, prototypes = unit(B, 2, D).requires_grad_(), unit(C, D).requires_grad_()
    loss = losses.BalancedContrastiveLoss(temperature=0.3)
    target = torch.tensor([0, 1, 2, 0, -100, 3])
    assert torch.autograd.gradcheck(lambda x, p: loss(x, p, target), (features, prototypes))
    assert torch.autograd.gradgradcheck(lambda x, p: loss(x, p, target), (features, prototypes))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"GMLLoss"}))
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, for in-place ops
def test_functional_transforms(name: str) -> None:
    x, loss = batch(name).detach(), ALL[name]
    expected = torch.autograd.grad(loss(x.requires_grad_(), TARGET), x)[0]
    x = x.detach()
    torch.testing.assert_close(grad(lambda x: loss(x, TARGET))(x), expected)
    several = vmap(grad(lambda x: loss(x, TARGET)))(torch.stack([0.5 * x, x]))
    torch.testing.assert_close(several[1], expected)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_gradients_per_sample(name: str) -> None:
    x, target = batch(name).detach(), torch.tensor([0, 1, 2, 0, 1, -100])

    def of_one(row: Tensor, label: Tensor) -> Tensor:
        return ON_LOGITS[name](row[None], label[None])

    mapped = vmap(grad(of_one))(x, target)
    for row, label, found in zip(x, target, mapped, strict=True):
        torch.testing.assert_close(found, grad(of_one)(row, label))


@by_name
def test_compiles_with_ignored_rows_and_without_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    x, target = batch(name).detach(), torch.tensor([0, -100, 2, -100, 1, 3])
    compiled = torch.compile(ALL[name], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, target), ALL[name](x, target))
