"""Class scores: gradients, order of keys, devices, compilation, the fused kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from longtail import ClassPrior, losses
from longtail.losses.class_scores_plain import plain_scores


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
        return plain_scores(query, key, segment, 4, None, query_index, key_index)[:2]

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
    torch.library.opcheck(plain_scores, (query, key, segment, 4, None, None, None))
    torch.library.opcheck(plain_scores, (query, key, segment, 4, None, *index))


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


def fused_agrees_with_plain(device: str) -> None:
    """Values and gradients of the fused kernel are those of the reference."""
    from longtail.losses.class_scores_triton import fused_scores

    generator = torch.Generator().manual_seed(0)
    for batch, keys, num_classes, width, indexed in [(5, 40, 4, 8, True), (34, 36, 5, 70, False)]:
        query = normalize(torch.randn(batch, width, generator=generator), dim=1) / 0.05
        key = normalize(torch.randn(keys, width, generator=generator), dim=1)
        segment = torch.randint(num_classes + 1, (keys,), generator=generator)
        segment[segment == 2] = num_classes  # counts for nothing, so that class 2 has no key;
        segment[segment == 3] = 1  # class 3 has the own key of query 0 alone
        segment[5] = 3
        query_index = torch.randint(50, (batch,), generator=generator)
        key_index = torch.randint(50, (keys,), generator=generator)
        key_index[5] = query_index[0]
        index = [query_index, key_index] if indexed else [None, None]
        args = [x if x is None else x.to(device) for x in (query, key, segment, *index)]
        query, key, segment, *index = args
        query.requires_grad_(), key.requires_grad_()
        fused = fused_scores(query, key, segment, num_classes, *index)[:3]
        plain = plain_scores(query, key, segment, num_classes, None, *index)[:3]
        assert plain[0].isinf().any()
        weight = torch.randn(2, num_classes, batch, generator=generator).to(device)
        gradients = []
        for scores in (fused, plain):
            finite = torch.where(torch.stack(scores[:2]) > -torch.inf, torch.stack(scores[:2]), 0.0)
            gradients.append(torch.autograd.grad((weight * finite).sum(), (query, key)))
        for got, want in zip((*fused, *gradients[0]), (*plain, *gradients[1]), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_fused_kernel_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    code = (
        "import importlib.util\n"
        "from longtail.losses import class_scores_triton\n"
        "class_scores_triton.SPLITS = 3\n"  # the interpreter is slow
        f"spec = importlib.util.spec_from_file_location('case', {str(Path(__file__))!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.fused_agrees_with_plain('cpu')\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_fused_kernel_on_a_gpu() -> None:
    fused_agrees_with_plain("cuda")


@pytest.mark.gpu
def test_a_million_keys_on_a_gpu() -> None:
    batch, keys, width, num_classes = 1024, 1_000_000, 128, 1000
    query = torch.randn(batch, width, device="cuda", requires_grad=True)
    key = torch.randn(keys, width, device="cuda", requires_grad=True)
    labels = torch.arange(keys, device="cuda") % num_classes
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    losses.class_scores(query, key, labels, num_classes, 1.0).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 2 * key.nbytes  # its gradient, and little
