"""Mixup and CutMix of any method's classifier: the loss of both targets, by their shares."""

import pytest
import torch
from lightning_fabric import Fabric

from longtail import ClassPrior
from longtail.losses import CrossEntropyLoss, LogitAdjustedLoss
from longtail.methods import Method, MixPartner, create_method, method_names
from longtail.methods.base import classifier_loss
from longtail.models import create_backbone

PRIOR = ClassPrior([20, 8, 4])
TARGET, OTHER = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 0, 1])
MIXING = [
    name
    for name, found in method_names().items()
    if getattr(found, "mixes", True) and not getattr(found, "first_method", "")
]


def test_it_is_the_mean_of_the_two_losses_by_share() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 0.25, 0.5, 0.0])
    mixed = classifier_loss(LogitAdjustedLoss(PRIOR), logits, TARGET, MixPartner(OTHER, weight))
    adjusted = logits + PRIOR.log_prior.float()
    first, second = (
        torch.nn.functional.cross_entropy(adjusted, labels, reduction="none")
        for labels in (TARGET, OTHER)
    )
    torch.testing.assert_close(mixed, (weight * first + (1 - weight) * second).mean())


def test_shares_are_not_rounded_to_the_precision_of_the_network() -> None:
    class Seen(torch.nn.Module):
        def forward(self, partner: MixPartner) -> torch.Tensor:
            return partner.weight

    fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
    weight = torch.tensor([0.99871])
    assert torch.equal(fabric.setup(Seen())(MixPartner(OTHER[:1], weight)), weight)


def test_without_pairs_it_is_the_loss() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss = CrossEntropyLoss(PRIOR)
    assert torch.equal(classifier_loss(loss, logits, TARGET, None), loss(logits, TARGET))


@pytest.mark.parametrize("name", MIXING)
def test_pairs_of_an_image_with_itself_change_nothing(name: str) -> None:
    def loss(partner: MixPartner | None) -> torch.Tensor:
        torch.manual_seed(0)
        method: Method = create_method(name, {}, PRIOR, create_backbone("smallnet")).train()
        views = torch.randint(0, 256, (method.num_views, 4, 3, 8, 8), dtype=torch.uint8)
        arguments = () if partner is None else (partner,)
        return method(views, TARGET, torch.arange(4), *arguments)["loss"].detach()

    alone = loss(None)
    own = loss(MixPartner(TARGET, torch.tensor([0.3, 0.5, 0.9, 0.1])))
    other = loss(MixPartner(OTHER, torch.full((4,), 0.1)))
    torch.testing.assert_close(own, alone, atol=2e-5, rtol=2e-5)
    assert not torch.allclose(other, alone, atol=1e-3)
