"""What every method for pixels owes the loop."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.losses import gml_loss
from longtail.methods import method_names
from longtail.models import create_dense_head
from longtail.segmentation import DenseBackbone, Segmenter, SmallUNet
from longtail.segmentation.methods import (
    PixelClassifier,
    PixelGML,
    PixelMethod,
    create_pixel_method,
    pixel_loss,
    sample_pixels,
)
from longtail.training.input import TrainingBatch

C = 4
PRIOR, IMAGE_PRIOR = ClassPrior([500, 80, 20, 3]), ClassPrior([12, 12, 10, 4])
NAMES = [
    "ce",
    "lade",
    *(n for n, m in method_names(PixelMethod).items() if issubclass(m, PixelMethod)),
]
SMALL: dict[str, dict[str, object]] = {"gml": {"queue_size": 64, "queue_base": 4}}


def backbone() -> DenseBackbone:
    torch.manual_seed(0)
    return SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6)


def make(name: str, **settings: object) -> PixelMethod:
    torch.manual_seed(0)
    given = {**SMALL.get(name, {}), **settings}
    return create_pixel_method(name, given, PRIOR, IMAGE_PRIOR, backbone()).train()


def batch(size: int = 3, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (1, size, 3, side, side), dtype=torch.uint8, generator=generator)
    target = torch.randint(C, (size, side // 8, side // 8), generator=generator)
    target = target.repeat_interleave(8, 1).repeat_interleave(8, 2)
    target[:, :3] = 255
    return images, target, torch.arange(size) + 7


def gradients(method: PixelMethod, *given: Tensor) -> Tensor:
    loss = method(*given)["loss"]
    method.zero_grad()
    loss.backward()
    method.after_step()
    assert loss.isfinite()
    found = [p.grad for p in method.parameters() if p.grad is not None]
    assert found
    assert all(grad.isfinite().all() for grad in found)
    return loss.detach()


def test_names() -> None:
    assert {"gml", "bcl"} <= set(NAMES)
    with pytest.raises(ValueError, match="did you mean 'gml'"):
        make("gmll")
    with pytest.raises(ValueError, match="must be one for segmentation, it is for classification"):
        make("longtail.methods.GML")


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_lower_the_loss(name: str) -> None:
    method, given = make(name), batch()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.05)
    seen = []
    for _ in range(4):
        seen.append(float(gradients(method, *given)))
        optimizer.step()
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("name", NAMES)
def test_one_image(name: str) -> None:
    gradients(make(name), *batch(size=1))


@pytest.mark.parametrize("name", NAMES)
def test_all_pixels_ignored(name: str) -> None:
    images, target, index = batch()
    assert gradients(make(name), images, torch.full_like(target, 255), index) == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_that_counts(name: str) -> None:
    images, target, index = batch()
    target = torch.full_like(target, 255)
    target[1, 9, 9] = 3
    gradients(make(name), images, target, index)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_class(name: str) -> None:
    images, target, index = batch()
    gradients(make(name), images, target.where(target != 3, 0), index)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_all_that_a_checkpoint_needs(name: str) -> None:
    first, given = make(name), batch()
    gradients(first, *given)
    second = make(name)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.manual_seed(5)
    expected = first(*given)["loss"]
    torch.manual_seed(5)
    assert torch.equal(second(*given)["loss"], expected)


@pytest.mark.parametrize("name", NAMES)
def test_sixteen_bits(name: str) -> None:
    method, given = make(name), batch()
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(*given)["loss"]
    assert rough.dtype == torch.float32
    exact = make(name)(*given)["loss"]
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0)  # bfloat16 has 8 bits


@pytest.mark.parametrize("name", [*NAMES, "logit_adjust"])
def test_recorded_steps_equal_computed_ones(
    name: str, train_steps: Callable[..., Any], assert_same: Callable[..., None]
) -> None:
    epochs = [[TrainingBatch(*batch(seed=5 * e + s)) for s in range(5)] for e in range(2)]
    computed, recorded = (train_steps(make(name), epochs, recorded=r) for r in (False, True))
    assert_same(computed, recorded)
    # The others select pixels.
    assert recorded.gradients.recorder.replays == (7 if name in ("ce", "logit_adjust") else 0)


def test_plain_is_the_loss_of_the_model_s_logits() -> None:
    method, (images, target, index) = make("ce"), batch()
    assert isinstance(method, PixelClassifier)
    logits = method.model(images[0])
    assert logits.shape == (3, C, 32, 32)
    torch.testing.assert_close(
        method(images, target, index)["loss"], pixel_loss(method.loss, logits, target)
    )


def test_memory_does_not_grow_with_the_resolution() -> None:
    method = make("gml")
    assert isinstance(method, PixelGML)
    sizes = []
    for side in (32, 64):
        images, target, index = batch(side=side)
        method.enqueue(images[0], target, index)
        chosen = sample_pixels(target, C, method.queries)
        sizes.append((method.queue.features.shape, len(chosen)))
    assert sizes[0] == sizes[1]


def test_keys_are_pixels_of_the_momentum_copy() -> None:
    method, (images, target, index) = make("gml", key_share=1.0, keys=2), batch()
    assert isinstance(method, PixelGML)
    method.enqueue(images[0], target, index)
    kept = method.queue.labels >= 0
    assert method.queue.filled.max() == 6  # 2 pixels of each of 3 images
    with torch.no_grad():
        features = method.key_encoder(images[0]).movedim(1, -1).flatten(0, 2)
    nearest = (method.queue.features[kept][:, None] - features).abs().sum(2).amin(1)
    assert nearest.max() < 1e-4
    assert set(method.queue.index[kept].tolist()) == {7, 8, 9}


def test_gml_is_classifier_plus_mutual_information() -> None:
    method, (images, target, index) = make("gml", key_share=1.0, beta=0.5, gamma=2.0), batch()
    assert isinstance(method, PixelGML)
    torch.manual_seed(3)
    loss = method(images, target, index)["loss"]
    torch.manual_seed(3)
    torch.rand(3, C, 1)  # the keys' start
    features = method.model.backbone(images[0])
    small = target[:, 1::2, 1::2]
    chosen = sample_pixels(small, C, method.queries)
    rows = features.movedim(1, -1).flatten(0, 2)[chosen.indices]
    stored = method.queue.labels >= 0
    contrast = gml_loss(
        method.project_query(rows),
        method.project_key(method.queue.features[stored]),
        method.queue.labels[stored],
        method.head(rows[:, :, None, None])[:, :, 0, 0],
        chosen.labels,
        IMAGE_PRIOR.log_prior,
        method.contrast.log_temperature,
        query_index=index[chosen.images],
        key_index=method.queue.index[stored],
        beta=0.5,
        gamma=0.0,
    )
    classifier = 2.0 * pixel_loss(method.classifier_loss, method.head(features), target)
    torch.testing.assert_close(loss, classifier + contrast)


def test_the_momentum_copy_follows() -> None:
    method, given = make("gml", momentum=0.5), batch()
    assert isinstance(method, PixelGML)
    assert not method.key_encoder.training
    for weight in method.model.backbone.parameters():
        weight.data.add_(1.0)
    before = [p.clone() for p in method.key_encoder.parameters()]
    method(*given)
    method.after_step()
    for old, now, student in zip(
        before, method.key_encoder.parameters(), method.model.backbone.parameters(), strict=True
    ):
        torch.testing.assert_close(now, (old + student) / 2)
    for ours, theirs in zip(
        method.key_encoder.buffers(), method.model.backbone.buffers(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_with_a_teacher(head: str) -> None:
    teacher = Segmenter(backbone(), create_dense_head(head, 6, C))
    settings = {**SMALL["gml"], "head": head}
    method = create_pixel_method("gml", settings, PRIOR, IMAGE_PRIOR, backbone(), teacher).train()
    assert isinstance(method, PixelGML)
    assert not any("teacher" in name for name in method.state_dict())
    assert method.model.head_name == head
    gradients(method, *batch())
    assert not teacher.training
    assert all(
        p.dtype == torch.float64
        for p in copy.deepcopy(method).double().teacher.network.parameters()
    )
    assert {7, 8, 9} <= set(method.queue.index.tolist())  # it sees every image
    alone = create_pixel_method(
        "gml", {**settings, "alpha": 0.0}, PRIOR, IMAGE_PRIOR, backbone(), teacher
    ).train()
    alone.load_state_dict(method.state_dict())  # and gml_loss is given no teacher
    torch.manual_seed(1)
    with_distillation = method(*batch())["loss"]
    torch.manual_seed(1)
    assert with_distillation > alone(*batch())["loss"]


def test_wrong_settings() -> None:
    for wrong, message in (
        ({"queries": 0}, r"queries of gml must be in \[1, \d+\], got 0"),
        ({"key_share": 1.5}, r"key_share of gml must be in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            make("gml", **wrong)
    with pytest.raises(ValueError, match=r"samples of bcl must be in \[1, \d+\], got 0"):
        make("bcl", samples=0)
    with pytest.raises(ValueError, match="head must be one of"):
        make("gml", head="round")
