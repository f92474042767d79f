"""Losses of maps as segmentation_models_pytorch and MMSegmentation call them."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior, losses
from longtail.integrations.segmentation import MapLoss
from longtail.losses import ClassificationLoss
from longtail.segmentation import pixel_loss

LOSSES = [
    value
    for value in (getattr(losses, name) for name in losses.__all__)
    if isinstance(value, type)
    and issubclass(value, ClassificationLoss)
    and value is not ClassificationLoss
]
PRIOR = ClassPrior([500, 80, 20])


def maps(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(3, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < 0.2] = 255
    return logits, target


@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_the_same_loss_as_in_our_own_training(cls: type[ClassificationLoss]) -> None:
    loss, (logits, target) = cls(PRIOR), maps()
    expected = pixel_loss(loss, logits, target)
    found = MapLoss(loss)(logits.requires_grad_(), target)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found.backward()
    assert logits.grad is not None
    assert (logits.grad.movedim(1, -1)[target == 255] == 0).all()


def test_any_ignore_index_and_a_channel_of_the_target() -> None:
    loss, (logits, target) = losses.LogitAdjustedLoss(PRIOR), maps()
    expected = MapLoss(loss)(logits, target)
    other = target.masked_fill(target == 255, -1)
    torch.testing.assert_close(MapLoss(loss, ignore_index=-1)(logits, other[:, None]), expected)
    all_ignored = MapLoss(loss)(logits.requires_grad_(), torch.full_like(target, 255))
    all_ignored.backward()
    assert all_ignored == 0


class Registry:
    """As much of MMEngine's `Registry` as the page uses."""

    def __init__(self) -> None:
        self.made: dict[str, Callable[..., Any]] = {}

    def register_module(self) -> Callable[[Any], Any]:
        return lambda module: self.made.setdefault(module.__name__, module)

    def build(self, config: dict[str, Any]) -> Any:
        return self.made[config["type"]](**{k: v for k, v in config.items() if k != "type"})


def test_as_a_decode_head_of_mmsegmentation_calls_it(
    monkeypatch: pytest.MonkeyPatch,
    run_blocks: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> None:
    """Its `loss_by_feat` passes the weight of each pixel and its own `ignore_index`."""
    models = Registry()
    monkeypatch.setitem(sys.modules, "mmseg", ModuleType("mmseg"))
    monkeypatch.setitem(sys.modules, "mmseg.registry", ModuleType("mmseg.registry"))
    monkeypatch.setattr(sys.modules["mmseg.registry"], "MODELS", models, raising=False)
    run_blocks("MMSegmentation", {})
    loss = models.build({"type": "LongtailLoss", "pixels": [500, 80, 20]})
    logits, target = maps()
    target = target.masked_fill(target == 255, 9)
    weight = torch.rand(2, 5, 6, dtype=torch.float64)
    found = loss(logits, target, weight=weight, ignore_index=9)
    nats = torch.nn.functional.cross_entropy(
        logits + PRIOR.log_prior.view(3, 1, 1), target, ignore_index=9, reduction="none"
    )
    weight = weight * (target != 9)
    torch.testing.assert_close(found, (weight * nats).sum() / weight.sum())
    assert loss.loss_name.startswith("loss_")
    assert loss(logits, target, weight=None, ignore_index=9) > 0


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((2, 3, 5, 6), torch.zeros(2, 5, 5, dtype=torch.int64), r"\(2, 3, 5, 6\) and \(2, 5, 5\)"),
        ((2, 3, 5), torch.zeros(2, 5, dtype=torch.int64), r"must be \(B, C, H, W\)"),
        ((1, 3, 1, 1), torch.tensor([[[7]]]), r"got \[7\]"),
        ((1, 3, 1, 1), torch.tensor([[[0.0]]]), "integer"),
    ],
)
def test_wrong_maps_are_refused(shape: tuple[int, ...], target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapLoss(losses.FocalLoss(PRIOR))(torch.zeros(shape), target)


def test_other_losses_are_refused() -> None:
    for loss in (losses.GMLLoss(PRIOR), torch.nn.CrossEntropyLoss()):
        message = f"loss of MapLoss must be a ClassificationLoss, got {type(loss).__name__}"
        with pytest.raises(ValueError, match=message):
            MapLoss(loss)  # type: ignore[arg-type]


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of a plane (0) with a band (1) and a few dots (2), which look alike."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 32, 32, dtype=torch.int64)
    masks[:, 20:26] = 1
    for mask in masks:
        row, column = torch.randint(2, 16, (2,), generator=generator).tolist()
        mask[row : row + 3, column : column + 3] = 2
    noise = torch.randn(count, 3, 32, 32, generator=generator)
    masks[:, :, :2] = 255
    return noise + 1.2 * masks.clamp(max=2)[:, None] * torch.tensor([1.0, 0.5, 0.0]).view(
        3, 1, 1
    ), masks


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_segmentation_models_finds_the_rare_class_more_often(
    run_blocks: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> None:
    import segmentation_models_pytorch as smp

    photographs, masks = scenes(12, 0)
    names = run_blocks(
        "Segmentation",
        {"torch": torch, "losses": losses, "ClassPrior": ClassPrior}
        | {"photographs": photographs, "masks": masks},
    )
    recall = []
    for loss in (
        smp.losses.SoftCrossEntropyLoss(ignore_index=255, smooth_factor=0.0),
        names["map_loss"],
    ):
        torch.manual_seed(0)
        network = smp.Unet("resnet18", encoder_weights=None, classes=3)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
        for _ in range(12):
            optimiser.zero_grad()
            loss(network(photographs), masks).backward()
            optimiser.step()
        test, truth = scenes(12, 1)
        with torch.no_grad():
            found = network.eval()(test).argmax(1)
        recall.append(float((found[truth == 2] == 2).float().mean()))
    assert recall[1] > recall[0] + 0.05
