"""Class scores: gradients, order of keys, devices, compilation."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from longtail import ClassPrior, losses
from longtail.losses.segmented_scores import (
    _excluded_mask,
    _excluded_pairs,
    gradient_by_mask,
    gradient_by_pairs,
    scores_by_mask,
    scores_by_pairs,
    segmented_scores,
)


def case(keys: int = 20, batch: int = 5, width: int = 4, num_classes: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = normalize(torch.randn(batch, width, generator=generator, dtype=torch.float64), dim=1)
    key = normalize(torch.randn(keys, width, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.arange(keys) % (num_classes + 1) - 1  # -1 counts for nothing
    labels = labels[torch.randperm(keys, generator=generator)]
    return [query.requires_grad_(), key.requires_grad_(), labels]


@pytest.mark.parametrize("excluded", [False, True])
def test_gradients_by_finite_differences(excluded: bool) -> None:
    query, key, labels = case()
    exclude = torch.rand(5, 20, generator=torch.Generator().manual_seed(1)) < 0.3
    log_temperature = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)

    def scores(query: Tensor, key: Tensor, log_temperature: Tensor) -> Tensor:
        return losses.class_scores(
            query, key, labels, 4, log_temperature.exp(), exclude=exclude if excluded else None
        )

    assert scores(query, key, log_temperature).isfinite().all()
    assert torch.autograd.gradcheck(scores, (query, key, log_temperature))


def test_both_scores_of_one_product_have_their_own_gradient() -> None:
    query, key, labels = case()
    query_index, key_index = torch.arange(5), torch.arange(20) % 7

    def both(query: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        segment = torch.where(labels < 0, 4, labels)
        return segmented_scores(query, key, segment, 4, None, query_index, key_index)[:2]

    assert torch.autograd.gradcheck(both, (query, key))


def test_any_order_of_keys() -> None:
    query, key, labels = case()
    order = labels.argsort()
    scores = losses.class_scores(query, key, labels, 4, 0.1)
    torch.testing.assert_close(
        losses.class_scores(query, key[order], labels[order], 4, 0.1), scores
    )


def test_key_without_gradient_gets_none() -> None:
    query, key, labels = case()
    losses.class_scores(query, key.detach(), labels, 4, 0.1).sum().backward()
    assert query.grad is not None
    assert key.grad is None


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own check reads it
def test_operators_keep_torchs_rules() -> None:
    query, key, labels = case()
    index = (torch.arange(5), torch.arange(20) % 7)
    segment = torch.where(labels < 0, 4, labels)
    torch.library.opcheck(segmented_scores, (query, key, segment, 4, None, None, None))
    torch.library.opcheck(segmented_scores, (query, key, segment, 4, None, *index))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # inductor calls what torch deprecates
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_breaks(backend: str) -> None:
    torch.compiler.reset()
    query, key, labels = case()
    prior, target = ClassPrior([9, 5, 2, 1]), torch.tensor([0, 1, 2, 3, 0])
    features = normalize(torch.randn(5, 2, 4, dtype=torch.float64), dim=2).requires_grad_()
    prototypes = torch.eye(4, dtype=torch.float64, requires_grad=True)
    gml = losses.GMLLoss(prior, alpha=1.0)
    paco, proco = losses.PaCoLoss(prior), losses.ProCoLoss(prior, width=4)
    proco.update(prototypes.detach(), torch.arange(4))

    def everything(query: Tensor, key: Tensor, features: Tensor, prototypes: Tensor) -> Tensor:
        index = (torch.arange(5), torch.arange(20) % 7)
        logits = query @ prototypes
        total = gml(
            query,
            key,
            labels,
            logits,
            target,
            query_index=index[0],
            key_index=index[1],
            teacher_logits=logits.detach() + 0.1,
        )
        exclude = index[0][:, None] == index[1]
        scores = losses.class_scores(query, key, labels, 4, 0.2, exclude=exclude)
        total = total + torch.where(scores.isfinite(), scores, 0.0).sum()
        total = total + losses.balanced_contrastive_loss(
            features, prototypes, target, temperature=0.1
        )
        total = total + losses.supervised_contrastive_loss(features, target, temperature=0.1)
        flat = features.transpose(0, 1).flatten(0, 1)
        total = total + paco(flat, target.repeat(2), logits)
        return total + proco(flat, target.repeat(2))

    inputs = (query, key, features, prototypes)
    leaves = (*inputs, gml.log_temperature)
    expected = everything(*inputs)
    value = torch.compile(everything, fullgraph=True, backend=backend)(*inputs)
    torch.testing.assert_close(value, expected)
    gradients = torch.autograd.grad(value, leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, leaves))


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # torch 2.11
def test_memory_does_not_grow_with_keys_times_classes() -> None:
    keys, batch, num_classes = 2000, 16, 2000
    query, key = torch.zeros(batch, 8, requires_grad=True), torch.zeros(keys, 8, requires_grad=True)
    labels = torch.arange(keys) % num_classes
    with torch.profiler.profile(profile_memory=True) as profile:
        losses.class_scores(query, key, labels, num_classes, 0.1).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * keys * num_classes / 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(4, 5), torch.zeros(4)), r"got \(2, 3\) and \(4, 5\)"),
        ((torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(5)), r"4 keys, got shape \(5,\)"),
    ],
)
def test_bad_shapes(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.class_scores(*arguments, 2, 0.1)


def test_bad_exclude() -> None:
    query, key, labels = case()
    with pytest.raises(ValueError, match=r"exclude .* \(5, 20\), got \(20, 5\)"):
        losses.class_scores(query, key, labels, 4, 0.1, exclude=torch.zeros(20, 5).bool())


@pytest.mark.parametrize("indexed", [False, True])
def test_a_mask_does_what_a_list_of_pairs_does(indexed: bool) -> None:
    """The way of other devices, which reads nothing back, beside that of the CPU."""
    generator = torch.Generator().manual_seed(0)
    batch, keys, num_classes = 34, 60, 5
    query = normalize(torch.randn(batch, 7, generator=generator), dim=1) / 0.05
    key = normalize(torch.randn(keys, 7, generator=generator), dim=1)
    segment = torch.randint(num_classes + 1, (keys,), generator=generator)
    segment[segment == 2] = num_classes  # does not count, so that class 2 has no key;
    segment[segment == 3] = 1  # class 3 has only the own key of query 0
    segment[5] = 3
    query_index = torch.randint(40, (batch,), generator=generator)
    key_index = torch.randint(40, (keys,), generator=generator)
    key_index[5] = query_index[0]
    index = (query_index, key_index) if indexed else (None, None)
    mask = _excluded_mask(None, *index)
    pairs = _excluded_pairs(segment, num_classes, batch, None, *index)
    by_pairs = scores_by_pairs(key @ query.T, segment, num_classes, *pairs)
    by_mask = scores_by_mask(key @ query.T, segment, num_classes, mask)
    assert by_pairs[0].isinf().any()
    for ours, theirs in zip(by_mask[:3], by_pairs[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grads = [torch.randn(num_classes, batch, generator=generator) for _ in range(2)]
    grads = [torch.where(s.isinf(), 0.0, g) for s, g in zip(by_pairs, grads, strict=False)]
    for given in (grads, [grads[0], None], [None, grads[1]]):
        torch.testing.assert_close(
            gradient_by_mask(*given, segment, *by_mask[3:], mask),
            gradient_by_pairs(*given, segment, *by_pairs[3:], *pairs),
            rtol=1e-5,
            atol=1e-5,
        )


def test_a_second_derivative_is_refused() -> None:
    query, key, labels = case()
    scores = losses.class_scores(query, key, labels, 4, 0.5)
    (gradient,) = torch.autograd.grad(scores.sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="class_scores_backward"):
        (gradient**2).sum().backward()


@pytest.mark.gpu
def test_gradients_on_a_gpu() -> None:
    query, key, labels = (x.detach().cuda() for x in case())
    index = (torch.arange(5).cuda(), (torch.arange(20) % 7).cuda())
    gml = losses.GMLLoss(ClassPrior([9, 5, 2, 1])).cuda()
    arguments = (labels, query @ torch.eye(4).double().cuda(), torch.arange(5).cuda() % 4)
    settings = {"query_index": index[0], "key_index": index[1]}
    values = []
    for device in ("cuda", "cpu"):
        leaves = [x.to(device).requires_grad_() for x in (query, key)]
        given = {name: value.to(device) for name, value in settings.items()}
        loss = gml.to(device)(*leaves, *(x.to(device) for x in arguments), **given)
        values.append([x.cpu() for x in (loss, *torch.autograd.grad(loss, leaves))])
    torch.testing.assert_close(*values)
