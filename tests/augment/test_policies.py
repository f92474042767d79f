"""AutoAugment against torchvision's; how often each operation comes."""

import pytest
import torch
from torchvision.transforms import v2

from longtail.augment import AutoAugment
from longtail.augment.policies import CIFAR10_POLICY, cifar10_rows, magnitude

NEAREST = v2.InterpolationMode.NEAREST
THEIRS = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


def pictures(batch, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(batch, 3, 4, 4, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(small, size=size, mode="bilinear")
    return (smooth + torch.rand(batch, 3, *size, generator=generator) * 20).clamp(0, 255).byte()


def torchvision_apply(image, name, level, sign, bins):
    """One operation of a policy, by torchvision's own tables and functions."""
    table = v2.RandAugment if name == "Identity" else v2.AutoAugment
    values, signed = table._AUGMENTATION_SPACE[name]
    steps = values(bins, *image.shape[1:])
    strength = 0.0 if steps is None else float(steps[level])
    return THEIRS._apply_image_or_video_transform(
        image, name, sign * strength if signed else strength, NEAREST, THEIRS._fill
    )


def test_the_policy_is_torchvisions():
    theirs = THEIRS._get_policies(v2.AutoAugmentPolicy.CIFAR10)
    ours = [
        tuple((name, p, None if name in {"AutoContrast", "Equalize", "Invert"} else level)
              for name, p, level in policy)
        for policy in CIFAR10_POLICY
    ]  # fmt: skip
    assert ours == theirs


@pytest.mark.parametrize("bins", [10, 31])
@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
def test_magnitudes_are_torchvisions(bins, size):
    for name, (values, _) in v2.RandAugment._AUGMENTATION_SPACE.items():
        expected = values(bins, *size)
        if expected is not None:
            ours = [magnitude(name, level, bins, *size) for level in range(bins)]
            assert ours == [float(value) for value in expected], name


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (24, 36)])
def test_every_image_gets_what_torchvision_would_give_it(size):
    images = pictures(300, size)
    rows = cifar10_rows()
    drawn = AutoAugment().rows(300, torch.Generator().manual_seed(3)).T.tolist()
    ours = AutoAugment()(images, torch.Generator().manual_seed(3))
    for image, stages, result in zip(images, drawn, ours, strict=True):
        for stage in stages:
            image = torchvision_apply(image, *rows[stage], bins=10)
        difference = (result.int() - image.int()).abs()
        # A level, where a processor rounds product and sum of a blend apart.
        assert difference.max() <= 1
        assert (difference > 0).float().mean() <= 2e-3


def test_autoaugment_draws_as_often_as_the_policy_says():
    batch = 40_000
    drawn = AutoAugment().rows(batch, torch.Generator().manual_seed(0))
    for stage in range(2):
        count = drawn[stage].bincount(minlength=len(cifar10_rows())).double()
        expected = torch.zeros_like(count)
        for number, policy in enumerate(CIFAR10_POLICY):
            for sign in range(2):
                expected[1 + (number * 2 + stage) * 2 + sign] = policy[stage][1] / 50
        expected[0] = 1 - expected.sum()
        deviation = (batch * expected * (1 - expected)).sqrt()
        assert ((count - batch * expected).abs() <= 4 * deviation).all()
    assert drawn[0].ne(0).logical_and(drawn[1].ne(0)).any()


def test_both_stages_belong_to_one_subpolicy():
    first, second = AutoAugment().rows(2000, torch.Generator().manual_seed(0))
    both = (first > 0) & (second > 0)
    assert both.sum() > 200
    assert torch.equal((first[both] - 1) // 4, (second[both] - 1) // 4)


def test_fill_comes_from_outside():
    image = torch.full((600, 3, 16, 16), 7, dtype=torch.uint8)
    seen = AutoAugment(fill=128)(image, torch.Generator().manual_seed(0))
    assert (seen[:, :, 0] == 128).any()
    assert not (AutoAugment()(image, torch.Generator().manual_seed(0)) == 128).any()


@pytest.mark.parametrize("fill", [256, -1, float("nan")])
def test_settings_that_make_no_sense_are_refused(fill):
    with pytest.raises(
        ValueError, match=rf"fill of AutoAugment must be in \[0, 255\].*, got {fill}"
    ):
        AutoAugment(fill=fill)
