import copy
import itertools
import math

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.data import DataConfig
from longtail.losses import CrossEntropyLoss
from longtail.methods import Method, PlainClassifier, create_method
from longtail.models import ImageClassifier, LinearHead, create_backbone
from longtail.training import Config
from longtail.training.optim import (
    AverageWeights,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    start_momentum,
)


def config(**settings: object) -> Config:
    return Config(DataConfig("digits-lt"), {"name": "ce"}, **settings)  # type: ignore[arg-type]


def test_cosine_goes_from_lr_to_nothing() -> None:
    given = config(epochs=100, lr=0.2, schedule="cosine", warmup=0)
    assert learning_rate(given, 0) == 0.2
    assert learning_rate(given, 50) == pytest.approx(0.1)
    assert learning_rate(given, 100) == pytest.approx(0, abs=1e-12)
    assert learning_rate(given, 25) == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)))


def test_warm_up_is_linear_and_constant_stays() -> None:
    given = config(epochs=10, lr=1.0, schedule="constant", warmup=0.4)
    assert [learning_rate(given, e) for e in (1, 2, 4, 9.5)] == [0.25, 0.5, 1, 1]


def test_a_warm_up_of_less_than_a_step_is_none() -> None:
    given = config(epochs=1, lr=1.0, schedule="constant", warmup=0.025)
    assert learning_rate(given, 0, steps=39) == 1
    assert learning_rate(given, 0, steps=40) == 0
    assert [learning_rate(given, e / 80, steps=80) for e in (0, 1, 2)] == [0, 0.5, 1]


def test_temperature_has_no_weight_decay() -> None:
    prior = ClassPrior([30, 20, 10])
    method = create_method("gml", {"queue_size": 32}, prior, create_backbone("smallnet"))
    optimizer = make_optimizer(method, config(weight_decay=0.5))
    bare = [g for g in optimizer.param_groups if g["weight_decay"] == 0]
    (temperature,) = bare[0]["params"]
    assert temperature is method.criterion.log_temperature
    trained = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}


def test_gradients_that_come_late_are_as_in_torchs_own_steps() -> None:
    method = create_method("ce", {}, ClassPrior([2, 1]), create_backbone("smallnet"))
    other = copy.deepcopy(method)
    ours = make_optimizer(method, config(lr=0.1))
    start_momentum(ours)
    theirs = torch.optim.SGD(
        other.parameters(), lr=0.1, momentum=0.9, weight_decay=config().weight_decay, fused=False
    )
    for step in range(3):
        for one, optimizer in ((method, ours), (other, theirs)):
            optimizer.zero_grad()
            for place, p in enumerate(one.parameters()):
                p.grad = torch.full_like(p, place + step) if place % 2 or step else None
            optimizer.step()
    for p, expected in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": -1}, r"epochs must be in \[0, 1000000\], got -1"),
        ({"epochs": 10**20}, r"epochs must be in \[0, 1000000\], got 100000000000000000000"),
        ({"batch_size": 1}, r"batch_size must be in \[2, 1000000\], got 1"),
        ({"seed": -1}, r"seed must be in \[0, 9223372036854775808\), got -1"),
        ({"momentum": 2.0}, r"momentum must be in \[0, 1\), got 2.0"),
        ({"minutes": 0.0}, "minutes must be > 0, got 0.0"),
        ({"nesterov": True, "momentum": 0.0}, "momentum must be above 0 where nesterov is set"),
        ({"lr": -0.1}, "lr must be >= 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be >= 0 and finite, got nan"),
        ({"milestones": [160]}, r"milestones must lie between 0 and 1 .*, got \[160\]"),
        ({"milestones": [0.8, 0.6]}, r"milestones .* and must not decrease, got \[0.8, 0.6\]"),
    ],
)
def test_impossible_settings(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**setting)


def test_the_backbone_may_learn_slower() -> None:
    backbone = create_backbone("smallnet")
    method = create_method("ce", {}, ClassPrior([2, 1]), backbone)
    optimizer = make_optimizer(method, config(backbone_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(method.parameters()))
    for parameter in backbone.parameters():
        assert rates[parameter] == pytest.approx(0.05)
    assert rates[method.model.head.weight] == 0.5  # type: ignore[index]


def test_parameters_without_weight_decay_may_learn_slower() -> None:
    class Bare(PlainClassifier):
        def no_weight_decay(self) -> list[torch.nn.Parameter]:
            return [p for p in self.parameters() if p.ndim == 1]

    backbone, prior = create_backbone("smallnet"), ClassPrior([2, 1])
    method = Bare(prior, backbone, loss=CrossEntropyLoss(prior))
    optimizer = make_optimizer(method, config(backbone_lr=0.1, layer_decay=0.5))
    set_learning_rate(optimizer, 1.0)
    found = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(method.parameters()))
    for p, group in found.items():
        assert (group["weight_decay"] == 0) == (p.ndim == 1)
    assert all(found[p]["lr"] < 0.2 for p in backbone.parameters())


class Averaged(Method):
    """Trains a network and keeps the average of its weights."""

    name = "averaged"
    expresses = "source"

    def __init__(self) -> None:
        super().__init__()
        backbone = create_backbone("smallnet")
        self.network = ImageClassifier(backbone, LinearHead(backbone.num_features, 2))
        self.model = copy.deepcopy(self.network).requires_grad_(False)

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {"loss": self.network(views[0]).mean()}


def test_the_backbone_may_learn_slower_where_the_model_is_an_average() -> None:
    method = Averaged()
    optimizer = make_optimizer(method, config(backbone_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(method.network.parameters()))
    assert {rates[p] for p in method.network.backbone.parameters()} == {0.05}
    assert {rates[p] for p in method.network.head.parameters()} == {0.5}


def test_adamw_is_torchs() -> None:
    method = create_method("ce", {}, ClassPrior([2, 1]), create_backbone("smallnet"))
    other = copy.deepcopy(method)
    ours = make_optimizer(method, config(optimizer="adamw", lr=1e-3, weight_decay=0.05))
    start_momentum(ours)
    theirs = torch.optim.AdamW(other.parameters(), lr=1e-3, weight_decay=0.05)
    for step in range(3):
        for one, optimizer in ((method, ours), (other, theirs)):
            for index, p in enumerate(one.parameters()):
                p.grad = torch.full_like(p, index - step)
            optimizer.step()
    for p, expected in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, expected)


def test_layer_decay_lowers_the_rate_block_by_block() -> None:
    backbone = create_backbone("efficientnet_lite0")
    method = create_method("ce", {}, ClassPrior([2, 1]), backbone)
    given = config(optimizer="adamw", lr=1.0, layer_decay=0.5, backbone_lr=0.1)
    optimizer = make_optimizer(method, given)
    set_learning_rate(optimizer, 1.0)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(method.parameters())
    by_name = {name: rates[p] for name, p in method.named_parameters()}
    assert by_name["model.head.weight"] == 1.0
    last = by_name["model.backbone.model._conv_head.weight"]
    blocks = [by_name[f"model.backbone.model._blocks.{n}._bn1.weight"] for n in range(16)]
    assert all(0 < low < high <= last <= 0.1 for low, high in itertools.pairwise(blocks))
    assert by_name["model.backbone.model._conv_stem.weight"] < blocks[0]
    for low, high in itertools.pairwise(blocks):
        assert high / low == pytest.approx(2)


def test_average_of_the_weights() -> None:
    module = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(module.weight)
    average = AverageWeights(module, 0.9)
    assert [*average.state_dict()["average"]] == ["model.weight", "model.bias"]
    expected = 0.0
    for step in range(1, 200):
        torch.nn.init.constant_(module.weight, float(step))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    again = AverageWeights(copy.deepcopy(module), 0.9)
    again.load_state_dict(copy.deepcopy(average.state_dict()))
    average.apply()
    assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert again.steps == 199
    with pytest.raises(KeyError, match=r"model\.weight"):
        again.load_state_dict({"steps": 3, "average": {"weight": module.weight}})
    unchanged = torch.nn.Linear(1, 1)
    before = unchanged.weight.clone()
    off = AverageWeights(unchanged, 0.0)
    off.update()
    off.apply()
    assert torch.equal(unchanged.weight, before)


@pytest.mark.parametrize(
    "wrong", [{"ema": 1.0}, {"layer_decay": 0.0}, {"layer_decay": 1.5}, {"minutes": 0.0}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be .*got {wrong[name]}"):
        config(**wrong)
