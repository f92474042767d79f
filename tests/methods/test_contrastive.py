"""What the contrastive methods feed to their losses, beside the losses' own tests."""

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.losses import (
    BalancedContrastiveLoss,
    LogitAdjustedLoss,
    ProCoLoss,
    paco_loss,
)
from longtail.methods import Method, create_method
from longtail.models import create_backbone

PRIOR = ClassPrior([20, 8, 4])
TARGET = torch.tensor([0, 1, 2, 0])


def make(name: str, **settings: float) -> Method:
    torch.manual_seed(0)
    return create_method(name, settings, PRIOR, create_backbone("smallnet")).eval()


def views(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 4, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_bcl_is_classifier_of_the_first_view_and_contrast_of_the_others() -> None:
    method = make("bcl", classifier_weight=2.0, contrast_weight=0.5)
    classifier_view, *contrast_views = views(3)
    logits = method.model(classifier_view)
    embeddings = [method.project(method.model.backbone(view)) for view in contrast_views]
    prototypes = method.project_prototype(method.head.weight)
    expected = 2.0 * LogitAdjustedLoss(PRIOR)(logits, TARGET)
    contrast = BalancedContrastiveLoss(temperature=0.1)
    expected += 0.5 * contrast(torch.stack(embeddings, dim=1), prototypes, TARGET)
    torch.testing.assert_close(method(views(3), TARGET, torch.arange(4))["loss"], expected)


@pytest.mark.parametrize("name", ["bcl", "proco"])
def test_the_projection_sees_all_three_views(name: str) -> None:
    method = make(name).train()
    seen: list[Tensor] = []
    method.project.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method(views(3), TARGET, torch.arange(4))["loss"].backward()
    (features,) = seen
    assert len(features) == 3 * len(TARGET)
    norm = method.project[1]  # whose statistics are those of all three views
    mean = method.project[0](features).mean(0)
    torch.testing.assert_close(norm.running_mean, norm.momentum * mean)


def test_proco_scores_each_view_after_its_own_update() -> None:
    method = make("proco", width=8, contrast_weight=0.5)
    embeddings = [method.project(method.model.backbone(view)) for view in views(3)[1:]]
    contrast = ProCoLoss(PRIOR, width=8)
    expected = []
    for embedding in embeddings:
        contrast.update(embedding.detach(), TARGET)
        expected.append(contrast(embedding, TARGET))
    loss = method(views(3), TARGET, torch.arange(4))
    torch.testing.assert_close(loss["contrast"], torch.stack(expected).mean().detach())
    classifier = LogitAdjustedLoss(PRIOR)(method.model(views(3)[0]), TARGET)
    torch.testing.assert_close(loss["loss"], classifier + 0.5 * torch.stack(expected).mean())
    together = ProCoLoss(PRIOR, width=8)  # both views at once, as it was not meant
    together.update(torch.cat(embeddings).detach(), TARGET.repeat(2))
    assert not torch.allclose(together(torch.cat(embeddings), TARGET.repeat(2)), loss["contrast"])


def test_paco_takes_keys_of_the_momentum_encoder_and_queues_them() -> None:
    method = make("paco", queue_size=6, width=8)
    query_view, key_view = views(2)
    features = method.model.backbone(query_view)
    key = method.project_key(method.key_encoder(key_view))
    expected = paco_loss(
        torch.cat([method.project(features), key]),
        torch.cat([TARGET, TARGET]),
        method.head(features),
        PRIOR.log_prior,
        queue_size=0,
        alpha=0.05,
        beta=1.0,
        gamma=1.0,
        temperature=0.05,
    )
    torch.testing.assert_close(method(views(2), TARGET, torch.arange(4))["loss"], expected)
    torch.testing.assert_close(method.queue.features[:4], key)
    assert method.queue.labels.tolist() == [0, 1, 2, 0, -1, -1]


def test_proco_counts_both_views_and_changes_estimates_by_epoch() -> None:
    method = make("proco", width=8)
    method.set_progress(0.0)
    method(views(3), TARGET, torch.arange(4))
    assert method.contrast.count.tolist() == [[4, 2, 2], [4, 2, 2]]
    method.set_progress(0.0)  # the same epoch again, after an interruption
    assert method.contrast.count.tolist() == [[4, 2, 2], [4, 2, 2]]
    method.set_progress(0.5)
    assert method.contrast.count.tolist() == [[4, 2, 2], [0, 0, 0]]


def test_the_probe_of_supcon_leaves_the_network_alone() -> None:
    method = make("supcon_features")
    method(views(2), TARGET, torch.arange(4))["loss"].backward()
    with_probe = [p.grad.clone() for p in method.model.backbone.parameters()]
    assert method.head.weight.grad.abs().max() > 0
    assert any(grad.abs().max() > 0 for grad in with_probe)  # the contrast reaches it
    method.zero_grad()
    features = method.model.backbone(views(2).flatten(0, 1))
    embeddings = method.project(features).unflatten(0, (2, -1)).transpose(0, 1)
    method.contrast(embeddings, TARGET).backward()
    for p, grad in zip(method.model.backbone.parameters(), with_probe, strict=True):
        torch.testing.assert_close(grad, p.grad)
