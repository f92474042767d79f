"""Affine transforms of uint8 images with bilinear or bicubic interpolation, like Pillow's."""

import torch
from torch import Tensor

from longtail.augment.batched import to_bytes


def resample(images: Tensor, matrix: Tensor, *, cubic: bool, fill: tuple[int, int, int]) -> Tensor:
    """Interpolates each pixel at its source given by `matrix`.

    Equals Pillow's `Image.transform` with `AFFINE` except for single pixels that are one level off,
    since Pillow computes in double precision.

    Args:
        images: (B, 3, H, W) uint8.
        matrix: (B, 6): x and y of the source are a x + b y + c and d x + e y + f, in pixels from
            the upper left corner, where the centre of the first pixel is (0.5, 0.5).
        cubic: bicubic interpolation; else bilinear.
        fill: red, green and blue of pixels whose source is outside the image.

    Returns: (B, 3, H, W) uint8.
    Examples:
        >>> images = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 3, 1, 4)
        >>> shift = torch.tensor([[1.0, 0, 1, 0, 1, 0]])  # one pixel to the left
        >>> resample(images, shift, cubic=False, fill=(9, 9, 9))[0, 0].tolist()
        [[1, 2, 3, 9]]
    """
    height, width = images.shape[2:]
    a, b, c, d, e, f = matrix.float().view(-1, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=images.device) + 0.5
    y = (torch.arange(height, device=images.device) + 0.5).unsqueeze(1)
    column, row = a * x + (b * y + c), d * x + (e * y + f)  # (B, H, W)
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    first, horizontal = _taps(column - 0.5, cubic)
    top, vertical = _taps(row - 0.5, cubic)
    pixels = images.flatten(2).float()
    total = torch.zeros_like(pixels)
    for down, lower in enumerate(vertical):
        line = (top + down).clamp_(0, height - 1).mul_(width)
        for right, upper in enumerate(horizontal):
            source = line + (first + right).clamp_(0, width - 1)
            found = pixels.gather(2, source.flatten(1).unsqueeze(1).expand(-1, 3, -1))
            total.addcmul_(found, (lower * upper).flatten(1).unsqueeze(1))
    # Pillow rounds bicubic values and truncates bilinear ones.
    result = to_bytes(total.round_() if cubic else total).view_as(images)
    for channel, value in zip(result.unbind(1), fill, strict=True):
        channel.masked_fill_(outside, value)
    return result


def _taps(position: Tensor, cubic: bool) -> tuple[Tensor, list[Tensor]]:
    """The first source pixel of each position, and the weights of the pixels from it on."""
    before = position.floor()
    t = position - before
    if not cubic:
        return before.long(), [1 - t, t]
    # Pillow's cubic, with a slope of -1 next to the centre.
    square, cube = t * t, t * t * t
    weights = [
        2 * square - cube - t,
        1 - 2 * square + cube,
        t + square - cube,
        cube - square,
    ]
    return before.long() - 1, weights
