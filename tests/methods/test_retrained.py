"""Two-stage methods: what they keep of the first stage, and what they learn."""

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.methods import LWS, Method, create_method
from longtail.models import CosineHead, ImageClassifier, LinearHead, create_backbone

PRIOR = ClassPrior([20, 8, 4])


def first_stage(classes: int = 3, cosine: bool = False) -> ImageClassifier:
    torch.manual_seed(1)
    backbone = create_backbone("smallnet")
    head = CosineHead if cosine else LinearHead
    model = ImageClassifier(backbone, head(backbone.num_features, classes))
    if not cosine:
        torch.nn.init.normal_(model.head.bias)
    return model.eval()


def second_stage(name: str, first: ImageClassifier, **settings: float) -> Method:
    torch.manual_seed(2)
    return create_method(name, settings, PRIOR, create_backbone("smallnet"), first).train()


def images() -> Tensor:
    return torch.randint(
        0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", ["crt", "lws", "supcon"])
def test_the_backbone_stays_to_the_last_bit(name: str) -> None:
    first = first_stage()
    before = {key: value.clone() for key, value in first.backbone.state_dict().items()}
    method = second_stage(name, first)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    for step in range(3):
        loss = method(images()[None], torch.tensor([0, 1, 2, 0, 1]), torch.arange(5) + step)["loss"]
        loss.backward()
        optimizer.step()
        method.after_step()
    after = method.model.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_lws_scales_logits_of_the_first_stage_with_their_bias() -> None:
    first = first_stage()
    method = second_stage("lws", first)
    assert isinstance(method, LWS)
    expected = first(images()).detach() * torch.tensor([1.0, 2.0, 0.5])
    with torch.no_grad():
        method.factor.copy_(torch.tensor([1.0, 2.0, 0.5]))
    method.after_step()
    torch.testing.assert_close(method.eval().model(images()), expected)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_tau_norm_is_its_formula(tau: float) -> None:
    first = first_stage()
    weight = first.head.weight.detach()
    features = first.backbone(images())
    norms = torch.tensor([row.norm() ** tau for row in weight])
    method = second_stage("tau_norm", first, tau=tau)
    assert not any(p.requires_grad for p in method.parameters())
    torch.testing.assert_close(method.eval().model(images()), features @ weight.T / norms)


@pytest.mark.parametrize("name", ["crt", "lws", "supcon", "tau_norm"])
def test_all_of_it_is_on_the_device_of_the_first_stage(name: str) -> None:
    method = second_stage(name, first_stage().to("meta"))
    assert {value.device.type for value in method.model.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("name", ["lws", "tau_norm"])
def test_a_cosine_head_cannot_be_rescaled(name: str) -> None:
    with pytest.raises(ValueError, match=f"first stage of {name} must have a linear head"):
        second_stage(name, first_stage(cosine=True))


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="must have the run's 3 classes, got 4"):
        second_stage("crt", first_stage(classes=4))


def test_a_negative_tau_is_refused() -> None:
    with pytest.raises(ValueError, match="tau of tau_norm must be >= 0, got -1"):
        second_stage("tau_norm", first_stage(), tau=-1)
