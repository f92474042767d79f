"""Batched filters on uint8 images, with a parameter per image: sharpness and blur.

These are sums of shifted images instead of convolutions: exact in float32 whatever precision a
device convolves in, and on the CPU faster than a convolution with a kernel per image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.batched import per_image, to_bytes
from longtail.errors import InputError


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image with its 3x3 average (centre weight 5); the border is unchanged.

    Equals torchvision's except for single pixels that are one level off, where a product and a
    sum are rounded separately instead of together.

    Args:
        images: (B, 3, H, W) uint8.
        factor: (B,), 0 or more; 0 is the blurred image, 1 the image itself.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `factor` is not (B,).
    """
    ratio = per_image("factor of sharpness", factor, images)
    if min(images.shape[2:]) <= 2:
        return images
    pixels = images.float()
    inside = pixels[:, :, 1:-1, 1:-1]
    rows = (pixels[:, :, :-2] + pixels[:, :, 1:-1]).add_(pixels[:, :, 2:])
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inside, alpha=4)
    difference = total.mul_(1 / 13).round_().sub_(inside)
    # 1 - ratio in double precision first, as in torchvision, where it is a Python float.
    inside.addcmul_(difference, (1 - factor.double()).to(ratio.dtype).view_as(ratio))
    return to_bytes(pixels)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blurs with a Gaussian kernel; the image is mirrored beyond its border.

    Equals torchvision's except for single pixels that are one level off: here rows and columns are
    filtered one after the other, there at once.

    Args:
        images: (B, 3, H, W) uint8, both sides above `kernel_size` // 2.
        sigma: (B,), pixels, above 0.
        kernel_size: odd number of pixels.

    Returns: (B, 3, H, W) uint8.
    Raises: ValueError: when `sigma` is not (B,) or `kernel_size` is even or too large.
    """
    half = kernel_size // 2
    if kernel_size < 1 or kernel_size % 2 == 0 or half >= min(images.shape[2:]):
        raise InputError(
            f"kernel_size of gaussian_blur must be odd and its half less than the images' sides, "
            f"got {kernel_size} for {tuple(images.shape[2:])}"
        )
    width = per_image("sigma of gaussian_blur", sigma, images)
    offset = torch.arange(-half, half + 1, device=images.device).view(-1, 1, 1, 1, 1)
    weights = (-0.5 * (offset / width).square()).softmax(dim=0)  # (kernel_size, B, 1, 1, 1)
    padded = F.pad(images.float(), [half] * 4, mode="reflect")
    return to_bytes(_weighted(_weighted(padded, weights, dim=2), weights, dim=3).round_())


def _weighted(pixels: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Sum of the pixels shifted along `dim` by 0, 1, ... and weighted."""
    size = pixels.shape[dim] - len(weights) + 1
    total = pixels.narrow(dim, 0, size) * weights[0]
    for shift in range(1, len(weights)):
        total.addcmul_(pixels.narrow(dim, shift, size), weights[shift])
    return total
