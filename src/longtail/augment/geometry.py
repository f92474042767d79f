"""Batched geometry of uint8 images: crop, flip, cutout, affine, resized crop.

Each takes parameters per image and agrees with torchvision's v2 functional on uint8 *tensors* with
the same parameters (torchvision's PIL path samples slightly differently).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.batched import choose, chosen_rows, to_bytes


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Cuts windows of the images' own size out of the images padded with zeros.

    Args:
        images: (B, 3, H, W) uint8.
        top: (B,) int64, first row of the window in the padded image, in [0, 2 padding].
        left: (B,) int64, first column, likewise.
        padding: pixels added on each side.

    Returns: (B, 3, H, W) uint8.
    Examples:
        >>> image = torch.arange(1, 5, dtype=torch.uint8).view(1, 1, 2, 2)
        >>> crop(image, torch.tensor([0]), torch.tensor([1]), padding=1).tolist()
        [[[[0, 0], [1, 2]]]]
    """
    batch, channels, height, width = images.shape
    canvas = F.pad(images, [padding] * 4).contiguous()
    rows, columns = canvas.shape[2:]
    plane = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    row = plane * rows + top.view(-1, 1, 1) + torch.arange(height, device=images.device)
    # A window of `width` bytes begins at every byte of the canvas, and each row of the result is
    # one of them, so that the crop copies whole rows instead of single pixels.
    windows = canvas.as_strided((canvas.numel() - width + 1, width), (1, 1))
    first = row * columns + left.view(-1, 1, 1)
    return windows.index_select(0, first.flatten()).view_as(images)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Flips images horizontally where `flipped` (B,) is true."""
    return choose(chosen_rows(flipped), images.flip(3), images)


def cutout(images: Tensor, row: Tensor, column: Tensor, length: int) -> Tensor:
    """Blackens a square around a pixel; what lies outside the image is cut off.

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv 1708.04552; as in their code, the square spans length // 2 pixels to each side.

    Args:
        images: (B, 3, H, W) uint8.
        row: (B,) int64, centre of the square, in [0, H).
        column: (B,) int64, in [0, W).
        length: side of the square, pixels.

    Returns: (B, 3, H, W) uint8.
    """
    half = length // 2
    hole = [
        (offset >= -half) & (offset < half)
        for offset in (
            torch.arange(size, device=images.device) - centre.view(-1, 1)
            for size, centre in zip(images.shape[2:], (row, column), strict=True)
        )
    ]
    keep = ~(hole[0].unsqueeze(2) & hole[1].unsqueeze(1))  # (B, H, W)
    return images * keep.unsqueeze(1).to(torch.uint8)


def affine_matrix(
    angle: Tensor,
    translate: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Source of each pixel of an affinely transformed image: the inverse of the transform.

    The transform is torchvision's `affine`: shear, scale and rotate about the centre, then shift.

    Args:
        angle: (B,), degrees, clockwise.
        translate: (B, 2), pixels to the right and down; default: none.
        scale: (B,), above 0; default: 1.
        shear: (B, 2), degrees, along x and y; default: none.
        centre: (2,), pixels from the middle of the image; default: the middle.

    Returns: (B, 2, 3) float64, from (x, y, 1) to (x, y), pixels from the middle of the image.
    """
    turn = angle.double().deg2rad()
    nothing = turn.new_zeros(len(turn), 2)
    shear_x, shear_y = (nothing if shear is None else shear.double().deg2rad()).unbind(1)
    size = torch.ones_like(turn) if scale is None else scale.double()
    a = (turn - shear_y).cos() / shear_y.cos()
    b = -a * shear_x.tan() - turn.sin()
    c = (turn - shear_y).sin() / shear_y.cos()
    d = -c * shear_x.tan() + turn.cos()
    # The determinant of [[a, b], [c, d]] is 1, hence its inverse is [[d, -b], [-c, a]].
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / size.view(-1, 1, 1)
    middle = turn.new_zeros(2) if centre is None else centre.to(turn)
    moved = middle + (nothing if translate is None else translate.double())
    return torch.cat([linear, middle.view(2, 1) - linear @ moved.unsqueeze(2)], dim=2)


def affine(images: Tensor, matrix: Tensor, fill: int = 0) -> Tensor:
    """Takes each pixel from the one nearest to its source given by `matrix`.

    Equals torchvision's `affine` and `rotate` (nearest interpolation) except for pixels whose
    source lies midway between two pixels, within rounding: they may take either.

    Args:
        images: (B, 3, H, W) uint8.
        matrix: (B, 2, 3), see `affine_matrix`.
        fill: value of pixels from outside the image.

    Returns: (B, 3, H, W) uint8.
    """
    height, width = images.shape[2:]
    a, b, c, d, e, f = matrix.float().view(-1, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2).unsqueeze(1)
    column = (a * x + (b * y + c + (width - 1) / 2)).round_().clamp_(-1, width)
    row = (d * x + (e * y + f + (height - 1) / 2)).round_().clamp_(-1, height)
    # Pixels from outside are taken from a frame of one pixel around the image.
    canvas = F.pad(images, [1] * 4, value=fill).flatten(2)
    source = row.mul_(width + 2).add_(column).add_(width + 3).long().flatten(1)
    return canvas.gather(2, source.unsqueeze(1).expand(-1, 3, -1)).view_as(images)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Cuts out boxes and enlarges each to the images' own size, bilinearly.

    Equals torchvision's `resized_crop` of the images as floats, rounded; with uint8 on the CPU,
    torchvision interpolates in fixed point and can be one level off.

    Args:
        images: (B, 3, H, W) uint8.
        top: (B,) int64, first row of the box, which must lie inside the image.
        left: (B,) int64, first column.
        height: (B,) int64, rows of the box, 1 or more.
        width: (B,) int64, columns of the box, 1 or more.

    Returns: (B, 3, H, W) uint8.
    """
    batch, channels, rows, columns = images.shape
    upper, lower, down = _between(top, height, rows)
    first, second, right = _between(left, width, columns)
    plane = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * rows
    lines = images.view(-1, columns)
    above, below = (
        lines.index_select(0, (plane + row.unsqueeze(1)).flatten()).view_as(images).float()
        for row in (upper, lower)
    )
    mixed = above.lerp_(below, down.view(batch, 1, rows, 1))
    start, end = (
        mixed.gather(3, column.view(batch, 1, 1, columns).expand_as(mixed))
        for column in (first, second)
    )
    return to_bytes(start.lerp_(end, right.view(batch, 1, 1, columns)).round_())


def _between(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two source pixels (B, size) of each new pixel, and the share of the second."""
    new = torch.arange(size, device=start.device) + 0.5
    position = (new * (length / size).unsqueeze(1) - 0.5).clamp_(min=0)
    before = position.floor()
    after = torch.minimum(before + 1, length.unsqueeze(1) - 1)
    return start.unsqueeze(1) + before.long(), start.unsqueeze(1) + after.long(), position - before
