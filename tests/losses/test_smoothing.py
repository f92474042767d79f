"""Label smoothing against slow loops; what it is refused for."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail import ClassPrior, losses
from longtail.losses import ClassificationLoss, CrossEntropyLoss
from longtail.methods import create_method, smooth_labels
from longtail.models import create_backbone

COUNTS = [90, 9, 3, 1]
PRIOR = ClassPrior(COUNTS)
SMOOTHED = (
    losses.CrossEntropyLoss,
    losses.ReweightedLoss,
    losses.ClassBalancedLoss,
    losses.LogitAdjustedLoss,
    losses.FocalLoss,
)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (8,), generator=generator)


@pytest.mark.parametrize("cls", SMOOTHED, ids=lambda cls: cls.__name__)
def test_every_class_as_the_target_in_turn(cls: type[ClassificationLoss]) -> None:
    loss, (logits, target) = cls(PRIOR), batch()
    loss.smooth_labels(0.2)
    weights = loss.class_weight()
    total, mass = 0.0, 0.0
    for row, label in zip(logits, target, strict=True):
        own = loss.per_sample(row[None], label[None])
        others = [loss.per_sample(row[None], torch.tensor([c])) for c in range(4)]
        weight = 1.0 if weights is None else float(weights[label])
        total += weight * float(0.8 * own + 0.2 * sum(others) / 4)
        mass += weight
    torch.testing.assert_close(float(loss(logits, target)), total / mass)


def test_cross_entropy_smooths_as_torch_does() -> None:
    loss, (logits, target) = CrossEntropyLoss(PRIOR), batch()
    loss.smooth_labels(0.1)
    wanted = cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, target), wanted)
    loss.smooth_labels(0.0)
    torch.testing.assert_close(loss(logits, target), cross_entropy(logits, target))


@pytest.mark.parametrize(
    "cls", [losses.LDAMLoss, losses.LADELoss, losses.DBMLoss], ids=lambda cls: cls.__name__
)
def test_a_loss_without_such_a_form(cls: type[ClassificationLoss]) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing must be 0 for {cls.__name__}, got 0.1"):
        cls(PRIOR).smooth_labels(0.1)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\)( and finite)?, got"):
        CrossEntropyLoss(PRIOR).smooth_labels(share)


def test_a_method_without_a_loss_of_classes_alone() -> None:
    method = create_method("paco", {}, PRIOR, create_backbone("smallnet"))
    smooth_labels(method, "paco", 0.0)
    with pytest.raises(ValueError, match="for method 'paco', which has no loss of classes alone"):
        smooth_labels(method, "paco", 0.1)
