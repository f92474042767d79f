"""Sharpness-aware minimisation: where its gradients are taken, and what a step leaves behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout

import longtail
from longtail import ClassPrior
from longtail.losses import CrossEntropyLoss
from longtail.methods import Method, create_method
from longtail.methods.plain import PlainClassifier
from longtail.models import create_backbone
from longtail.training.graphed import compute_gradients
from longtail.training.input import TrainingBatch
from longtail.training.sharpness import SharpnessAware

PRIOR = ClassPrior([20, 8, 4])


class Dropped(PlainClassifier):
    """Cross-entropy after dropout."""

    def __init__(self) -> None:
        super().__init__(PRIOR, create_backbone("smallnet"), loss=CrossEntropyLoss(PRIOR))

    def forward(self, views: Tensor, target: Tensor, index: Tensor, partner: Any = None) -> Any:
        return {"loss": cross_entropy(dropout(self.model(views[0]), 0.5), target)}


def batch(views: int) -> TrainingBatch:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (views, 6, 3, 8, 8), dtype=torch.uint8)
    return TrainingBatch(images, torch.tensor([0, 0, 0, 1, 1, 2]), torch.arange(6))


def wrapped(method: Method) -> tuple[Fabric, Any, Any]:
    fabric = Fabric(accelerator="cpu", devices=1)
    return fabric, *fabric.setup(method, torch.optim.SGD(method.parameters(), lr=0.1))


def gradients(method: Method) -> list[Tensor]:
    return [p.grad.clone() for p in method.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["ce", "gml", "bcl", "dropout"])
def test_gradients_are_those_at_the_top_of_the_step(name: str) -> None:
    torch.manual_seed(0)
    small = {"gml": {"queue_size": 12}, "bcl": {"hidden": 8, "width": 4}}.get(name, {})
    backbone = create_backbone("smallnet")
    method = Dropped() if name == "dropout" else create_method(name, small, PRIOR, backbone)
    fabric, model, optimizer = wrapped(method.train())
    start = {key: value.clone() for key, value in method.state_dict().items()}
    given = batch(method.num_views)

    torch.manual_seed(7)
    first = compute_gradients(fabric, model, optimizer, given)
    plain = gradients(method)
    after = {key: value.clone() for key, value in method.named_buffers()}
    norm = torch.cat([grad.flatten() for grad in plain]).norm()
    method.load_state_dict(start)
    moved = [p for p in method.parameters() if p.grad is not None]
    with torch.no_grad():
        for p, grad in zip(moved, plain, strict=True):
            p.add_(0.05 * grad / norm)
    torch.manual_seed(7)
    compute_gradients(fabric, model, optimizer, given)
    expected = gradients(method)
    assert any(not torch.equal(*pair) for pair in zip(plain, expected, strict=True))

    method.load_state_dict(start)
    torch.manual_seed(7)
    losses = SharpnessAware(compute_gradients, 0.05)(fabric, model, optimizer, given)
    assert torch.equal(losses["loss"], first["loss"])
    for found, due in zip(gradients(method), expected, strict=True):
        torch.testing.assert_close(found, due)
    for key, value in method.named_parameters():
        assert torch.equal(value, start[key]), key
    for key, value in method.named_buffers():
        assert torch.equal(value, after[key]), key


def test_a_run_has_it_where_it_is_given(tmp_path: Path) -> None:
    quick = {"epochs": 2, "batch_size": 64, "device": "cpu", "backbone": "smallnet"}
    runs = {
        radius: longtail.train("digits-lt", "ce", out=tmp_path / f"{radius}", sam=radius, **quick)
        for radius in (0.0, 1e-6, 0.5)
    }
    plain = longtail.train("digits-lt", "ce", out=tmp_path / "plain", **quick)
    logits = {radius: run.predictions().logits for radius, run in runs.items()}
    assert torch.equal(logits[0.0], plain.predictions().logits)
    torch.testing.assert_close(logits[1e-6], logits[0.0], rtol=0, atol=0.05)
    assert not torch.allclose(logits[0.5], logits[0.0], rtol=0, atol=0.05)
    with pytest.raises(ValueError, match=r"sam must be >= 0.*, got -1"):
        longtail.train("digits-lt", "ce", out=tmp_path / "x", sam=-1, **quick)
