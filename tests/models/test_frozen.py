import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from longtail.models import CosineHead, Frozen, ImageClassifier, LinearHead, create_backbone


class Casts(TorchDispatchMode):
    """Counts casts of float32 tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to = func is torch.ops.aten._to_copy.default and args[0].dtype == torch.float32
        self.count += bool(to)
        return func(*args, **(kwargs or {}))


def logits(network: nn.Module, images: Tensor) -> tuple[Tensor, int]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Casts() as casts:
        return network(images), casts.count


@pytest.mark.parametrize("head", [CosineHead, LinearHead])
@pytest.mark.parametrize("backbone", ["resnet20", "smallnet", "mobilenetv3_small_050"])
def test_the_numbers_of_autocast_without_its_casts(head: type[nn.Module], backbone: str) -> None:
    torch.manual_seed(0)
    encoder = create_backbone(backbone)
    network = ImageClassifier(encoder.for_inference(), head(encoder.num_features, 5)).eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    expected, casts = logits(network, images)
    with torch.autocast("cpu", torch.bfloat16):
        twin = Frozen(network).network
    found, left = logits(twin, images)
    assert torch.equal(found, expected)
    weights = sum(type(m) in (nn.Conv2d, nn.Linear) for m in encoder.modules())
    assert left <= casts - weights
    assert twin.head.weight.dtype == torch.float32


def test_cast_once_and_only_under_autocast() -> None:
    frozen = Frozen(nn.Linear(2, 3))
    kept = copy.deepcopy(frozen.network)
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen.network is frozen.network
        assert frozen.network.weight.dtype == torch.bfloat16
    assert torch.equal(frozen.network.weight, kept.weight)
    assert frozen.network.weight.dtype == torch.float32
    assert not list(frozen.modules())[1:]
    assert not frozen.network.weight.requires_grad


def test_a_move_is_followed() -> None:
    frozen = Frozen(nn.Linear(2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        before = frozen.network.weight
        assert frozen.double().network.weight.dtype == torch.float64  # autocast leaves it alone
        assert torch.equal(frozen.float().network.weight, before)
