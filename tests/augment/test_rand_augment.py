"""RandAugment against timm's, operation by operation, and how often each is applied."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from longtail.augment import RandAugment
from longtail.augment.batched import chosen_operations
from longtail.augment.rand_augment import (
    BICUBIC,
    BILINEAR,
    GEOMETRIC,
    IMAGENET_MEAN,
    RAND_AUGMENT,
    _operations,
    matrices,
    strength,
)

timm = pytest.importorskip("timm.data.auto_augment")
THEIRS = {name: f"{name}Rel" if name.startswith("Translate") else name for name in RAND_AUGMENT}
LEVELS = torch.tensor([2.6, 3.3, 8.7, 9.4, 10.0], dtype=torch.float64)


def pictures(batch: int, size: tuple[int, int] = (40, 48)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(batch, 3, 5, 5, generator=generator) * 255
    smooth = interpolate(small, size=size, mode="bicubic")
    return (smooth + torch.rand(batch, 3, *size, generator=generator) * 20).clamp(0, 255).byte()


def by_timm(image: Tensor, name: str, level: float, negative: bool, cubic: bool) -> Tensor:
    """One operation of timm's at a level whose random sign is given."""
    level_to_argument = timm.LEVEL_TO_ARG[THEIRS[name]]
    arguments = () if level_to_argument is None else level_to_argument(level, {})
    if name in GEOMETRIC:
        arguments = (-abs(arguments[0]) if negative else abs(arguments[0]),)
    resampling = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    settings = {"fillcolor": IMAGENET_MEAN, "resample": resampling}
    changed = timm.NAME_TO_OP[THEIRS[name]](picture, *arguments, **settings)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


def test_the_operations_are_timms() -> None:
    assert sorted(THEIRS.values()) == sorted(timm._RAND_TRANSFORMS)


@pytest.mark.parametrize("name", RAND_AUGMENT)
def test_strengths_are_timms(name: str) -> None:
    level_to_argument = timm.LEVEL_TO_ARG[THEIRS[name]]
    if level_to_argument is None:
        return
    ours = strength(name, LEVELS, torch.zeros(len(LEVELS)).bool())
    theirs = [abs(level_to_argument(level, {})[0]) for level in LEVELS.tolist()]
    assert ours.tolist() == pytest.approx(theirs)
    negative = strength(name, LEVELS, torch.ones(len(LEVELS)).bool())
    assert torch.equal(negative, -ours if name in GEOMETRIC else ours)


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", RAND_AUGMENT)
def test_pixels_are_timms(name: str, negative: bool, cubic: bool) -> None:
    images = pictures(len(LEVELS))
    value = strength(name, LEVELS, torch.full((len(LEVELS),), negative))
    parameters = torch.zeros(1, len(LEVELS), 6, dtype=torch.float64)
    if name in GEOMETRIC:
        parameters[0] = matrices(name, value, *images.shape[2:])
        number = BICUBIC if cubic else BILINEAR
    else:
        parameters[0, :, 0] = value
        number = 1 + RAND_AUGMENT.index(name)
    choice = torch.full((1, len(LEVELS)), number)
    ours = chosen_operations(choice, parameters, _operations(IMAGENET_MEAN))(images)
    for image, level, result in zip(images, LEVELS.tolist(), ours, strict=True):
        theirs = by_timm(image, name, level, negative, cubic)
        difference = (result.int() - theirs.int()).abs()
        # Pillow blends by integer grey values and rounds elsewhere: a level or two.
        off = (difference > 2).float().mean()
        assert off <= (2e-3 if name in GEOMETRIC else 0), (name, level, difference.max())
        if name in ("Invert", "Posterize", "Solarize", "SolarizeAdd"):
            assert difference.max() == 0


def test_how_often_and_how_strongly() -> None:
    batch = 30_000
    chosen, level, negative, cubic = RandAugment().choices(batch, torch.Generator().manual_seed(0))
    share = 1 / 30  # each of 15 with probability one half
    for number in range(1, 16):
        found = (chosen == number).double().mean().item()
        assert abs(found - share) < 4 * (share / (2 * batch)) ** 0.5
    assert abs((chosen == 0).all(0).double().mean().item() - 0.25) < 0.01
    assert level.max() == 10
    assert level.min() < 9
    assert abs((level == 10).double().mean().item() - 0.5) < 0.01  # the clipped half
    assert abs(level.mean().item() - (10 - 0.5 / (2 * torch.pi) ** 0.5)) < 0.01
    for coin in (negative, cubic):
        assert abs(coin.double().mean().item() - 0.5) < 0.01


def test_a_quarter_of_the_images_is_unchanged_as_by_timm() -> None:
    images = pictures(1).expand(2000, -1, -1, -1)
    seen = RandAugment()(images, torch.Generator().manual_seed(0))
    same = (seen == images).flatten(1).all(1).double().mean().item()
    transform = timm.rand_augment_transform("rand-n2-m10-mstd0.5", {"img_mean": IMAGENET_MEAN})
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    timm.random.seed(0)
    np.random.seed(0)  # noqa: NPY002 timm draws from it
    theirs = [np.array_equal(np.array(transform(picture)), np.array(picture)) for _ in range(2000)]
    assert abs(same - np.mean(theirs)) < 0.05
    assert 0.2 < same < 0.4  # Solarize with a threshold of 256 changes nothing either


def test_the_same_seed_gives_the_same_views_and_magnitude_0_of_p_1_is_not_identity() -> None:
    images = pictures(8)
    first, second = (RandAugment()(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(RandAugment(p=1.0)(images, torch.Generator().manual_seed(3)), images)
    assert torch.equal(RandAugment(p=0.0)(images, torch.Generator().manual_seed(3)), images)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"num_ops": 0}, ">= 1, got 0"),
        ({"num_ops": 1.5}, "a whole number, got 1.5"),
        ({"magnitude": 11}, r"in \[0, 10\], got 11"),
        ({"std": -1.0}, ">= 0, got -1.0"),
        ({"std": float("inf")}, ">= 0 and finite, got inf"),
        ({"p": 1.5}, r"in \[0, 1\], got 1.5"),
        ({"fill": (0, 0, 300)}, r"in \[0, 255\], got \(0, 0, 300\)"),
    ],
)
def test_invalid_settings(setting: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(setting))} of RandAugment must be .*{rule}"):
        RandAugment(**setting)
