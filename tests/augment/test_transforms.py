"""Random operations: what they draw, and how often."""

import math
from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from longtail.augment import (
    ColorJitter,
    Cutout,
    RandomAffine,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomGreyscale,
    RandomResizedCrop,
    colour,
    crop,
)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(batch, size=(8, 8), seed=0):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=draw(seed))


def test_crop_moves_evenly_in_both_directions():
    batch, padding = 8100, 1
    image = noise(1)
    seen = RandomCrop(padding)(image.expand(batch, -1, -1, -1), draw())
    place = torch.arange(3)
    count = [
        (seen == crop(image, place[i : i + 1], place[j : j + 1], 1)).flatten(1).all(1).sum().item()
        for i in range(3)
        for j in range(3)
    ]
    assert sum(count) == batch
    assert all(abs(number - 900) < 4 * 30 for number in count)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_flip_mirrors_its_share(p):
    images = noise(4000)
    seen = RandomFlip(p)(images, draw())
    mirrored = (seen == images.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(seen[~mirrored], images[~mirrored])
    assert abs(mirrored.float().mean() - p) < 0.03


def test_cutout_centres_everywhere():
    images = torch.ones(6400, 3, 8, 8, dtype=torch.uint8)
    holes = (Cutout(4)(images, draw()) == 0)[:, 0].flatten(1).sum(dim=1)
    # Rows of a hole that lie inside, on average over its centre; columns likewise.
    side = sum(min(8, y + 2) - max(0, y - 2) for y in range(8)) / 8
    assert holes.min() == 4
    assert holes.max() == 16
    assert abs(holes.float().mean() - side**2) < 0.2


def test_resized_crop_draws_boxes_as_torchvision_does():
    image = torch.zeros(3, 32, 24, dtype=torch.uint8)
    ours = RandomResizedCrop((0.2, 1.0)).boxes(4000, 32, 24, draw()).double()
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(32, scale=(0.2, 1.0))
    rows = [theirs.make_params([image]) for _ in range(4000)]
    expected = torch.tensor([[row[k] for k in ("top", "left", "height", "width")] for row in rows])
    expected = expected.T.double()
    # Four standard errors of a difference of two means.
    error = 4 * (ours.var(dim=1) / 2000).sqrt()
    assert ((ours.mean(dim=1) - expected.mean(dim=1)).abs() < error).all()
    torch.testing.assert_close(ours.std(dim=1), expected.std(dim=1), atol=0, rtol=0.08)
    assert (ours[0] + ours[2] <= 32).all()
    assert (ours[1] + ours[3] <= 24).all()


@pytest.mark.parametrize("size", [(4, 33), (33, 4)])
def test_resized_crop_of_a_strip_falls_back_to_its_middle(size):
    ours = RandomResizedCrop((1.0, 1.0)).boxes(3, *size, draw())
    image = torch.zeros(3, *size, dtype=torch.uint8)
    theirs = v2.RandomResizedCrop(8, scale=(1.0, 1.0)).make_params([image])
    expected = [theirs[k] for k in ("top", "left", "height", "width")]
    assert ours.T.tolist() == [expected] * 3


def test_affine_draws_an_angle_and_a_scale_for_every_image():
    images = noise(1, (16, 16)).expand(50, -1, -1, -1)
    seen = RandomAffine(10, scale=(0.9, 1.1))(images, draw())
    assert len({image.numpy().tobytes() for image in seen}) > 40
    assert torch.equal(RandomAffine(0)(images, draw()), images)
    blank = torch.full((200, 3, 16, 16), 9, dtype=torch.uint8)
    # A scale of a half leaves a frame of a quarter of the side, whatever is drawn.
    small = RandomAffine(0, scale=(0.5, 0.5))(blank, draw())
    assert torch.equal((small > 0)[0, 0].nonzero().amin(0), torch.tensor([4, 4]))


def test_jitter_draws_the_order_and_the_factor(monkeypatch):
    def marked(number):
        # The order becomes a number of four digits to the base of four, in every pixel.
        return lambda images, value: images * 4 + number

    for number, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        monkeypatch.setattr(colour, name, marked(number))
    images = torch.zeros(4800, 3, 1, 1, dtype=torch.uint8)
    seen = ColorJitter(0.4, 0.4, 0.4, 0.1)(images, draw())
    count = Counter(seen[:, 0, 0, 0].tolist())
    assert len(count) == 24
    assert all(abs(number - 200) < 4 * 200**0.5 for number in count.values())


def test_jitter_stays_in_its_range():
    images = torch.full((5000, 3, 1, 1), 100, dtype=torch.uint8)
    seen = ColorJitter(0.4, 0.0, 0.0, 0.0, p=0.5)(images, draw())[:, 0, 0, 0].float()
    changed = seen[seen != 100]
    assert abs(len(changed) / 5000 - 0.5) < 0.03
    assert changed.min() >= 60
    assert changed.max() <= 140
    assert abs(changed.std() - 80 / 12**0.5) < 1


def test_jitter_of_nothing_is_nothing():
    images = noise(6)
    assert torch.equal(ColorJitter(0, 0, 0, 0)(images, draw()), images)


def test_blur_changes_its_share():
    images = noise(1000)
    seen = RandomBlur(3, sigma=(1.0, 2.0), p=0.3)(images, draw())
    changed = (seen != images).flatten(1).any(dim=1)
    assert abs(changed.float().mean() - 0.3) < 0.05
    assert seen[changed].float().std() < 0.6 * images.float().std()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(-1), "padding of RandomCrop must be >= 0, got -1"),
        (lambda: RandomFlip(1.1), r"p of RandomFlip must be in \[0, 1\], got 1.1"),
        (lambda: RandomResizedCrop((0.5, 1.5)), "scale of RandomResizedCrop must be .* <= 1, got"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "ratio of RandomResizedCrop must be .* got"),
        (lambda: RandomAffine(-5), "degrees of RandomAffine must be >= 0, got -5"),
        (lambda: RandomAffine(5, (0, 1)), "scale of RandomAffine must be 0 < .* got"),
        (lambda: Cutout(0), "length of Cutout must be >= 1, got 0"),
        (lambda: ColorJitter(contrast=-0.1), "contrast of ColorJitter must be >= 0, got -0.1"),
        (lambda: ColorJitter(p=2), r"p of ColorJitter must be in \[0, 1\], got 2"),
        (lambda: RandomGreyscale(-1), r"p of RandomGreyscale must be in \[0, 1\], got -1"),
        (lambda: ColorJitter(hue=0.6), r"hue of ColorJitter must be in \[0, 0.5\], got 0.6"),
        (lambda: RandomBlur(3, sigma=(0, 1)), "sigma of RandomBlur must be 0 < .* got"),
        (lambda: RandomCrop(math.nan), "padding of RandomCrop must be >= 0 and finite, got nan"),
        (lambda: RandomCrop(1.5), "padding of RandomCrop must be a whole number, got 1.5"),
        (lambda: RandomAffine(math.nan), "degrees of RandomAffine must be >= 0 and finite, got"),
        (lambda: Cutout(2.5), "length of Cutout must be a whole number, got 2.5"),
        (lambda: ColorJitter(math.nan), "brightness of ColorJitter must be >= 0 and finite, got"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
