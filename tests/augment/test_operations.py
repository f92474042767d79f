"""Each batched operation against torchvision's v2 functional, image by image."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as F

from longtail.augment import (
    affine,
    affine_matrix,
    autocontrast,
    brightness,
    contrast,
    crop,
    cutout,
    equalize,
    flip,
    gaussian_blur,
    greyscale,
    hue,
    invert,
    posterize,
    resized_crop,
    saturation,
    sharpness,
    solarize,
)
from longtail.augment.batched import send

BATCH = 48
SIZES = [(32, 32), (8, 8), (28, 21), (3, 40), (2, 2)]
BLENDS = {
    "brightness": (brightness, F.adjust_brightness),
    "contrast": (contrast, F.adjust_contrast),
    "saturation": (saturation, F.adjust_saturation),
    "sharpness": (sharpness, F.adjust_sharpness),
}


def draw(seed):
    return torch.Generator().manual_seed(seed)


def pictures(size, generator):
    """Noise, low contrast, one flat value, and two values only."""
    images = torch.randint(0, 256, (BATCH, 3, *size), dtype=torch.uint8, generator=generator)
    images[:12] = images[:12] // 4 + 60
    images[12:15] = 77
    images[15:18] &= 1
    return images


def stack(function, images, *parameters):
    """The oracle on each image with its own parameters."""
    rows = zip(images, *parameters, strict=True)
    return torch.stack([function(image, *each) for image, *each in rows])


def assert_one_level(ours, theirs, share):
    """At most one level off, on at most this share of the values."""
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= share


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BLENDS)
def test_blends_equal_torchvision(name, size):
    ours, theirs = BLENDS[name]
    generator = draw(0)
    images = pictures(size, generator)
    factor = torch.rand(BATCH, generator=generator, dtype=torch.float64) * 2
    factor[::3] = (factor[::3] * 10).round() / 10  # round factors end on whole values more often
    expected = stack(theirs, images, factor.tolist())
    # A processor without fused multiply-add may round an exact .0 down.
    assert_one_level(ours(images, factor), expected, share=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_equal_torchvision(size):
    generator = draw(1)
    images = pictures(size, generator)
    bits = torch.randint(0, 9, (BATCH,), generator=generator)
    threshold = torch.rand(BATCH, generator=generator, dtype=torch.float64) * 255
    threshold[::2] = threshold[::2].round()
    pairs = {
        "posterize": (posterize(images, bits), stack(F.posterize, images, bits.tolist())),
        "solarize": (solarize(images, threshold), stack(F.solarize, images, threshold.tolist())),
        "autocontrast": (autocontrast(images), F.autocontrast(images)),
        "equalize": (equalize(images), F.equalize(images)),
        "invert": (invert(images), F.invert(images)),
        "greyscale": (greyscale(images), F.rgb_to_grayscale(images, 3)),
    }
    for name, (ours, theirs) in pairs.items():
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("size", SIZES)
def test_hue_is_torchvisions_within_a_level(size):
    generator = draw(2)
    images = pictures(size, generator)
    shift = torch.rand(BATCH, generator=generator, dtype=torch.float64) - 0.5
    assert_one_level(hue(images, shift), stack(F.adjust_hue, images, shift.tolist()), share=1e-3)
    assert torch.equal(hue(images, torch.zeros(BATCH)), images)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_blur_is_torchvisions_within_a_level(kernel_size):
    generator = draw(3)
    images = pictures((16, 12), generator)
    sigma = torch.rand(BATCH, generator=generator) * 2 + 0.1
    expected = stack(
        lambda image, s: F.gaussian_blur(image, [kernel_size] * 2, [s] * 2), images, sigma.tolist()
    )
    assert_one_level(gaussian_blur(images, sigma, kernel_size), expected, share=1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_equals_torchvision(size, padding):
    generator = draw(4)
    images = pictures(size, generator)
    top, left = torch.randint(2 * padding + 1, (2, BATCH), generator=generator)
    padded = F.pad(images, [padding] * 4)
    expected = stack(lambda image, i, j: F.crop(image, i, j, *size), padded, top, left)
    assert torch.equal(crop(images, top, left, padding), expected)
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.equal(crop(channels_last, top, left, padding), expected)


def test_flip_equals_torchvision():
    images = pictures((5, 7), draw(5))
    flipped = torch.arange(BATCH) % 3 == 0
    ours = flip(images, flipped)
    assert torch.equal(ours[flipped], F.horizontal_flip(images[flipped]))
    assert torch.equal(ours[~flipped], images[~flipped])


@pytest.mark.parametrize(("size", "length"), [((32, 32), 16), ((8, 6), 4), ((9, 7), 5)])
def test_cutout_is_the_authors_loop(size, length):
    generator = draw(6)
    images = pictures(size, generator) | 1
    row, column = (torch.randint(side, (BATCH,), generator=generator) for side in size)
    expected = images.clone()
    for image, y, x in zip(expected, row.tolist(), column.tolist(), strict=True):
        above, left = max(0, y - length // 2), max(0, x - length // 2)
        image[:, above : y + length // 2, left : x + length // 2] = 0
    assert torch.equal(cutout(images, row, column, length), expected)


def assert_same_but_midway(ours, theirs, matrix):
    """Equal wherever the source is not midway between two pixels (within 0.001)."""
    height, width = ours.shape[2:]
    x, y = torch.meshgrid(
        torch.arange(width) - (width - 1) / 2,
        torch.arange(height) - (height - 1) / 2,
        indexing="xy",
    )
    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1).double()
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1)
    fraction = (matrix @ points + middle).remainder(1)
    midway = ((fraction - 0.5).abs() < 1e-3).any(dim=1).view(len(ours), 1, height, width)
    assert midway.float().mean() < 0.1
    assert torch.equal(ours.where(~midway, ours.new_zeros(())), theirs * ~midway)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0, 128])
def test_affine_is_torchvisions(size, fill):
    generator = draw(7)
    images = pictures(size, generator)
    uniform = torch.rand(5, BATCH, generator=generator, dtype=torch.float64)
    angle, scale = uniform[0] * 360 - 180, uniform[1] + 0.5
    shear = (uniform[2:4] * 60 - 30).T
    translate = torch.randint(-9, 10, (BATCH, 2), generator=generator)
    matrix = affine_matrix(angle, translate, scale, shear)
    expected = stack(
        lambda image, *each: F.affine(image, *each, fill=fill),
        images,
        *(value.tolist() for value in (angle, translate, scale, shear)),
    )
    assert_same_but_midway(affine(images, matrix, fill), expected, matrix)


@pytest.mark.parametrize("size", SIZES[:3])
def test_rotation_is_torchvisions(size):
    images = pictures(size, draw(8))
    angle = torch.linspace(-170, 171, BATCH, dtype=torch.float64)
    matrix = affine_matrix(-angle)
    expected = stack(F.rotate, images, angle.tolist())
    assert_same_but_midway(affine(images, matrix), expected, matrix)


@pytest.mark.parametrize("size", SIZES)
def test_resized_crop_is_torchvisions(size):
    generator = draw(9)
    images = pictures(size, generator)
    length = [torch.randint(1, side + 1, (BATCH,), generator=generator) for side in size]
    start = [
        (torch.rand(BATCH, generator=generator) * (side - part + 1)).long()
        for side, part in zip(size, length, strict=True)
    ]
    boxes = (*start, *length)

    def theirs(pixels):
        return stack(lambda image, *box: F.resized_crop(image, *box, size), pixels, *boxes)

    ours = resized_crop(images, *boxes)
    # Halves are rounded up or down by the last bit of a float.
    assert_one_level(ours, theirs(images.float()).round(), share=5e-3)
    assert_one_level(ours, theirs(images), share=1.0)  # fixed point there


def test_images_are_left_alone():
    images = pictures((8, 8), draw(10))
    before = images.clone()
    one = torch.ones(BATCH) * 0.3
    for operation in (brightness, contrast, saturation, sharpness, hue, posterize, solarize):
        operation(images, one)
    for operation in (autocontrast, equalize, invert, greyscale):
        operation(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "operation", [brightness, contrast, saturation, sharpness, hue, posterize, solarize]
)
def test_a_parameter_of_another_shape_is_refused(operation):
    images = pictures((8, 8), draw(11))
    with pytest.raises(ValueError, match=rf"of {operation.__name__} must hold one value .* \(3,\)"):
        operation(images, torch.ones(3))


@pytest.mark.parametrize("kernel_size", [0, 2, 9])
def test_a_kernel_that_does_not_fit_is_refused(kernel_size):
    with pytest.raises(ValueError, match=rf"kernel_size of gaussian_blur .* {kernel_size} for"):
        gaussian_blur(torch.zeros(1, 3, 4, 8, dtype=torch.uint8), torch.ones(1), kernel_size)


def test_what_was_drawn_is_sent_in_one_piece():
    share = torch.rand(1, generator=draw(12)).expand(5)
    sent = [torch.arange(6).view(2, 3), share, share > 2, torch.tensor(0.1).double(), share[:0]]
    received = send(sent, torch.device("cpu"))
    for ours, theirs in zip(received, sent, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert len({tensor.untyped_storage().data_ptr() for tensor in received}) == 1


def test_it_is_sent_to_a_gpu_from_pinned_memory():
    done = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            for name in ("pin_memory", "non_blocking"):
                done.append(name) if (kwargs or {}).get(name) else None
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), Record():
        received = send([torch.zeros(3), torch.zeros(2, 2)], torch.device("cuda"))
    assert done == ["pin_memory", "non_blocking"]
    assert {tensor.device.type for tensor in received} == {"cuda"}
