"""Mixup and CutMix: what is mixed, and with which weight."""

import pytest
import torch

from longtail.augment import CutMix, Mixup


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=64, shape=(3, 8, 6), seed=0):
    images = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=draw(seed))
    return images, torch.arange(size)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 6), (2, 3, 8, 6)])
def test_mixup_is_the_weighted_mean(shape, shared):
    images, target = batch(shape=shape)
    mixed = Mixup(0.5, shared)(images, target, draw(1))
    assert torch.equal(mixed.target, target)
    share = mixed.weight.view(-1, *[1] * len(shape))
    # Targets are places here, so that `other` says which image came second.
    expected = share * images.float() + (1 - share) * images[mixed.other].float()
    assert mixed.images.dtype == torch.uint8
    assert (mixed.images.float() - expected).abs().max() <= 0.5 + 1e-4
    floats = Mixup(0.5, shared)(images.float(), target, draw(1))
    torch.testing.assert_close(floats.images, expected)
    assert (len(mixed.weight.unique()) == 1) == shared


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(3, 8, 6), (2, 3, 8, 6)])
def test_cutmix_is_a_box_of_the_other(shape, dtype, shared):
    _, target = batch()
    images = (target + 1).to(dtype).view(-1, *[1] * len(shape)).expand(-1, *shape)
    mixed = CutMix(1.0, shared)(images, target, draw(2))
    own = mixed.images == images
    other = mixed.images == images[mixed.other]
    assert (own | other).all()
    moved = mixed.other != target
    share = own.flatten(1).float().mean(dim=1)
    torch.testing.assert_close(mixed.weight[moved], share[moved])
    assert (len(mixed.weight.unique()) == 1) == shared
    for image in (~own[moved]).flatten(1, -3)[:, 0]:
        rows, columns = image.any(dim=1), image.any(dim=0)
        assert torch.equal(image, rows.unsqueeze(1) & columns)  # a rectangle
    assert mixed.images.dtype == dtype


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_are_beta(alpha):
    images, target = batch(20_000, (1, 1, 1))
    weight = Mixup(alpha)(images, target, draw()).weight.double()
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert abs(weight.mean() - 0.5) < 0.02
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weight.var() - variance) < 0.05 * variance


def test_the_share_that_cutmix_cuts_is_beta():
    images, target = batch(4000, (1, 64, 64))
    weight = CutMix(1.0)(images, target, draw()).weight
    # A box of side s, its centre anywhere, covers s - s^2 / 4 of each axis on average; its area
    # s^2 is uniform.
    side = torch.linspace(0, 1, 100_001, dtype=torch.float64).sqrt()
    expected = 1 - ((1 - side / 4) * side).square().mean()
    assert abs(weight.mean() - expected) < 0.02


@pytest.mark.parametrize("mix", [Mixup(0.4), CutMix()])
def test_the_generator_decides(mix):
    images, target = batch()
    first, again, other = (mix(images, target, draw(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("mix", [Mixup(0.4), CutMix()])
def test_an_image_alone_is_mixed_with_itself(mix):
    images, target = batch(1)
    mixed = mix(images, target, draw())
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.other, target)


@pytest.mark.parametrize("mix", [Mixup, CutMix])
def test_what_makes_no_sense_is_refused(mix):
    with pytest.raises(ValueError, match=f"alpha of {mix.__name__} must be > 0, got 0"):
        mix(0)
    images, target = batch()
    with pytest.raises(ValueError, match=r"target must hold one class .* got \(3,\) for images"):
        mix()(images, target[:3], draw())
