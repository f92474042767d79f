"""Batched colour operations on uint8 images, with a parameter per image.

All agree with the corresponding function in `torchvision.transforms.v2.functional` on uint8
tensors, bit for bit unless the docstring says otherwise. If the new value of a pixel depends only
on its old one (and on its image), it is computed once for the 256 values and looked up: the same
arithmetic with fewer operations on fewer numbers.
"""

import torch
from torch import Tensor

from longtail.augment.batched import per_image, to_bytes


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies every pixel by a factor.

    Args:
        images: (B, 3, H, W) uint8.
        factor: (B,), 0 or more; 0 is black, 1 the image itself.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `factor` is not (B,).
    Examples:
        >>> brightness(torch.full((1, 3, 1, 1), 100, dtype=torch.uint8), torch.tensor([1.5])).max()
        tensor(150, dtype=torch.uint8)
    """
    scale = per_image("factor of brightness", factor, images).flatten(1)
    return _look_up(images, to_bytes(_values(images) * scale))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image with the mean of its grey values.

    Args:
        images: (B, 3, H, W) uint8.
        factor: (B,), 0 or more; 0 is uniform grey, 1 the image itself.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `factor` is not (B,).
    """
    ratio = per_image("factor of contrast", factor, images)
    mean = _grey(images).floor_().mean(dim=(1, 2)).view(-1, 1)
    return _look_up(images, _blend(_values(images) * ratio.flatten(1), mean, factor.view(-1, 1)))


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image with its grey version.

    Equals torchvision's except for single pixels that are one level off, where a product and a
    sum are rounded separately instead of together.

    Args:
        images: (B, 3, H, W) uint8.
        factor: (B,), 0 or more; 0 is the grey image, 1 the image itself.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `factor` is not (B,).
    """
    ratio = per_image("factor of saturation", factor, images)
    grey = _grey(images).floor_().unsqueeze(1)
    return _blend(images * ratio, grey, factor.view(-1, 1, 1, 1))


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotates the hue.

    Equals torchvision's except for single pixels that are one level off: the conversion from hue
    back to colour is written in fewer steps here, which round differently.

    Args:
        images: (B, 3, H, W) uint8.
        shift: (B,), in turns, in [-0.5, 0.5].

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `shift` is not (B,).
    """
    turn = per_image("shift of hue", shift, images).flatten(1).unsqueeze(2)  # (B, 1, 1)
    pixels = images.float()
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    divisor = chroma.clamp(min=1)  # grey pixels have chroma 0 and keep their value below
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    # torchvision goes via [0, 1] and back with x 255.999, so that no value falls below its own.
    value, chroma = value.mul_(255.999 / 255), chroma.mul_(255.999 / 255)
    sextant = sextant.add_(6 * turn)
    turned = [value - chroma * _tent(sextant + offset) for offset in (5, 3, 1)]
    return to_bytes(torch.stack(turned, dim=1))


def greyscale(images: Tensor) -> Tensor:
    """Grey values (0.2989 R + 0.587 G + 0.114 B, truncated) in all three channels.

    Args:
        images: (B, 3, H, W) uint8.

    Returns: (B, 3, H, W) uint8.
    """
    return to_bytes(_grey(images)).unsqueeze(1).expand_as(images).contiguous()


def invert(images: Tensor) -> Tensor:
    """255 minus every value of images (B, 3, H, W) uint8."""
    return ~images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest bits of every value.

    Args:
        images: (B, 3, H, W) uint8.
        bits: (B,), whole numbers in [0, 8].

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `bits` is not (B,).
    """
    kept = per_image("bits of posterize", bits, images).flatten(1)
    step = torch.exp2(8 - kept)
    return _look_up(images, ((_values(images) / step).floor_() * step).to(torch.uint8))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts every value at or above a threshold.

    Args:
        images: (B, 3, H, W) uint8.
        threshold: (B,), in [0, 255] to change anything.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `threshold` is not (B,).
    """
    values = _values(images)
    above = values >= per_image("threshold of solarize", threshold, images).flatten(1)
    return _look_up(images, torch.where(above, 255 - values, values).to(torch.uint8))


def solarize_add(images: Tensor, added: Tensor) -> Tensor:
    """Adds a number to every value below 128; the sum is at most 255.

    Args:
        images: (B, 3, H, W) uint8.
        added: (B,), whole numbers, 0 or more.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `added` is not (B,).
    """
    values = _values(images)
    raised = values + per_image("added of solarize_add", added, images).flatten(1)
    return _look_up(images, to_bytes(torch.where(values < 128, raised, values)))


def autocontrast(images: Tensor) -> Tensor:
    """Stretches each channel of each image to the full range; a constant channel is unchanged.

    Args:
        images: (B, 3, H, W) uint8.

    Returns: (B, 3, H, W) uint8.
    """
    low = images.amin(dim=(2, 3)).float()
    scale = (images.amax(dim=(2, 3)).float() - low).mul_(1 / 255)
    flat = scale == 0
    low, scale = low.masked_fill(flat, 0), scale.masked_fill(flat, 1)
    return _look_up(images, to_bytes((_values(images) - low.unsqueeze(2)).div_(scale.unsqueeze(2))))


def equalize(images: Tensor) -> Tensor:
    """Flattens the histogram of each channel of each image, by the rule of PIL.

    Args:
        images: (B, 3, H, W) uint8.

    Returns: (B, 3, H, W) uint8.
    """
    pixels = images.flatten(2).long()
    counts = torch.zeros(*pixels.shape[:2], 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, pixels, counts.new_ones(1).expand_as(pixels))
    below = (counts.cumsum(dim=2) - counts).float()
    # PIL omits the largest value's pixels from the step between new levels.
    largest = images.amax(dim=(2, 3)).long().unsqueeze(2)
    step = ((pixels.shape[2] - counts.gather(2, largest)) / 255).floor_()
    # Whole numbers below 2^23, of which a float quotient is never rounded up to the next one;
    # division of integers is several times slower.
    table = ((below + (step / 2).floor_()) / step.clamp(min=1)).floor_().clamp_(max=255)
    table = torch.where(step == 0, _values(images), table)
    return _look_up(images, table.to(torch.uint8), pixels)


def _look_up(images: Tensor, table: Tensor, pixels: Tensor | None = None) -> Tensor:
    """New values from a table (B, 256) for each image or (B, 3, 256) for each of its channels."""
    table = table.view(len(images), -1, 256)
    if pixels is None:
        pixels = images.view(*table.shape[:2], images[:1].numel() // table.shape[1]).long()
    return table.gather(2, pixels).view_as(images)


def _values(images: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float32, device=images.device)


def _grey(images: Tensor) -> Tensor:
    """Grey values (B, H, W), float32, by the same three steps as torchvision's."""
    red, green, blue = images.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(scaled: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    """`scaled` (image x ratio) plus other x (1 - ratio)."""
    # 1 - ratio in double precision first, as in torchvision, where it is a Python float.
    return to_bytes(torch.addcmul(scaled, other, (1 - ratio.double()).float()))


def _tent(sextant: Tensor) -> Tensor:
    """Share of the chroma missing in a channel, around the colour circle of length 6.

    It rises from 0 to 1 over [0, 1], stays at 1, falls to 0 over [3, 4], and is 0 up to 6.
    """
    # Not `remainder`, which is slow on the CPU.
    angle = sextant.sub(sextant.div(6).floor_(), alpha=6)
    return torch.minimum(angle, 4 - angle).clamp_(0, 1)
