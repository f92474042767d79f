"""Random operations: each draws a parameter per image and passes it to a batched function."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment import colour
from longtail.augment.batched import (
    Drawn,
    Operation,
    choose,
    chosen_operations,
    chosen_rows,
    uniform,
)
from longtail.augment.filters import gaussian_blur
from longtail.augment.geometry import affine, affine_matrix, crop, cutout, resized_crop
from longtail.errors import InputError
from longtail.ranges import check_range


@dataclass(frozen=True)
class RandomCrop(Operation):
    """Shifts each image by up to `padding` pixels in both directions, filling with zeros.

    Args:
        padding: pixels, 0 or more.

    Raises: ValueError: when `padding` is below 0.
    """

    padding: int

    def __post_init__(self) -> None:
        check_range("padding of RandomCrop", self.padding, least=0, whole=True)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws the windows, for images (B, 3, H, W)."""
        top, left = torch.randint(2 * self.padding + 1, (2, shape[0]), generator=generator)
        return Drawn(
            (top, left), lambda images, drawn: crop(images, next(drawn), next(drawn), self.padding)
        )


@dataclass(frozen=True)
class RandomResizedCrop(Operation):
    """Enlarges a random box of each image to the image's size, like torchvision's.

    Args:
        scale: least and largest share of the image's area.
        ratio: least and largest width over height.

    Raises: ValueError: when a bound is not above 0, or the least exceeds the largest.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                limit = " <= 1" if name == "scale" else ""
                raise InputError(
                    f"{name} of RandomResizedCrop must be 0 < least <= largest{limit}, "
                    f"got {(low, high)}"
                )

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws the boxes, for images (B, 3, H, W)."""
        batch, _, rows, columns = shape
        boxes = self.boxes(batch, rows, columns, generator)
        return Drawn((boxes,), lambda images, drawn: resized_crop(images, *next(drawn)))

    def boxes(self, batch: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """Draws boxes (top, left, height, width) in images of a size, (4, B) int64, on the CPU."""
        # Ten tries per image, of which the first that fits is used, as in torchvision's loop.
        area, ratio = uniform((2, 10, batch), 0, 1, generator)
        area = rows * columns * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = (low + ratio * (high - low)).exp()
        width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        first = fits.long().argmax(dim=0, keepdim=True)
        whole_width = min(columns, round(rows * self.ratio[1]))
        whole_height = min(rows, round(columns / self.ratio[0]))
        none_fits = ~fits.any(dim=0)
        width = width.gather(0, first)[0].masked_fill(none_fits, whole_width)
        height = height.gather(0, first)[0].masked_fill(none_fits, whole_height)
        position = uniform((2, batch), 0, 1, generator)
        top, left = (
            torch.where(none_fits, (room / 2).floor(), (share * (room + 1)).floor())
            for share, room in zip(position, (rows - height, columns - width), strict=True)
        )
        return torch.stack([top, left, height, width]).long()


@dataclass(frozen=True)
class RandomFlip(Operation):
    """Flips horizontally with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_range("p of RandomFlip", self.p, least=0, most=1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws which of the images (B, 3, H, W) are flipped."""
        rows = _rows(self.p, shape[0], generator)
        return Drawn((rows,), lambda images, drawn: choose(next(drawn), images.flip(3), images))


@dataclass(frozen=True)
class RandomAffine(Operation):
    """Rotates and scales each image slightly about its centre, filling with zeros.

    Args:
        degrees: largest angle in either direction.
        scale: least and largest factor.

    Raises: ValueError: when `degrees` is below 0, or `scale` is not 0 < least <= largest.
    """

    degrees: float
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_range("degrees of RandomAffine", self.degrees, least=0)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(
                f"scale of RandomAffine must be 0 < least <= largest, got {self.scale}"
            )

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws angles and scales, for images (B, 3, H, W)."""
        angle = uniform((shape[0],), -self.degrees, self.degrees, generator)
        scale = uniform((shape[0],), *self.scale, generator)
        matrix = affine_matrix(angle, scale=scale)
        return Drawn((matrix,), lambda images, drawn: affine(images, next(drawn)))


@dataclass(frozen=True)
class Cutout(Operation):
    """Blackens a square around a random pixel of each image.

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv 1708.04552.

    Args:
        length: side of the square, pixels; 16 for CIFAR in the papers of this field.

    Raises: ValueError: when `length` is below 1.
    """

    length: int

    def __post_init__(self) -> None:
        check_range("length of Cutout", self.length, least=1, whole=True)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws the centres, for images (B, 3, H, W)."""
        row, column = (torch.randint(side, (shape[0],), generator=generator) for side in shape[2:])
        return Drawn(
            (row, column),
            lambda images, drawn: cutout(images, next(drawn), next(drawn), self.length),
        )


@dataclass(frozen=True)
class ColorJitter(Operation):
    """Changes brightness, contrast, saturation and hue, in a random order per image.

    Args:
        brightness: the factor lies in [1 - brightness, 1 + brightness], not below 0.
        contrast: likewise.
        saturation: likewise.
        hue: the shift lies in [-hue, hue], turns.
        p: probability that an image changes at all.

    Raises: ValueError: when an amount is below 0, `hue` above 0.5 or `p` not in [0, 1].
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    p: float = 1.0

    def __post_init__(self) -> None:
        check_range("p of ColorJitter", self.p, least=0, most=1)
        for name in ("brightness", "contrast", "saturation"):
            check_range(f"{name} of ColorJitter", getattr(self, name), least=0)
        check_range("hue of ColorJitter", self.hue, least=0, most=0.5)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws order and amounts of the changes, for images (B, 3, H, W)."""
        batch = shape[0]
        amounts = (self.brightness, self.contrast, self.saturation)
        drawn = [
            uniform((batch,), max(0.0, 1 - amount), 1 + amount, generator) for amount in amounts
        ]
        drawn.append(uniform((batch,), -self.hue, self.hue, generator))
        order = uniform((4, batch), 0, 1, generator).argsort(dim=0)
        factor = torch.stack(drawn).gather(0, order).unsqueeze(2)
        left_out = uniform((batch,), 0, 1, generator) >= self.p
        functions = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
        operations = [
            (lambda chosen, value, change=change: change(chosen, value[:, 0])) if amount else None
            for change, amount in zip(functions, (*amounts, self.hue), strict=True)
        ]
        return chosen_operations(order.masked_fill(left_out, 4), factor, [*operations, None])


@dataclass(frozen=True)
class RandomGreyscale(Operation):
    """Makes an image grey with probability `p`."""

    p: float = 0.2

    def __post_init__(self) -> None:
        check_range("p of RandomGreyscale", self.p, least=0, most=1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws which of the images (B, 3, H, W) become grey."""
        rows = _rows(self.p, shape[0], generator)
        return Drawn(
            (rows,), lambda images, drawn: choose(next(drawn), colour.greyscale(images), images)
        )


@dataclass(frozen=True)
class RandomBlur(Operation):
    """Blurs an image with probability `p`, with a Gaussian kernel of random width.

    Args:
        kernel_size: odd number of pixels; about a tenth of the image's side in the papers.
        sigma: least and largest width of the Gaussian, pixels.
        p: probability that an image changes.

    Raises: ValueError: when `sigma` is not 0 < least <= largest, or `p` not in [0, 1].
    """

    kernel_size: int
    sigma: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        check_range("p of RandomBlur", self.p, least=0, most=1)
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise InputError(f"sigma of RandomBlur must be 0 < least <= largest, got {self.sigma}")

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws which of the images (B, 3, H, W) are blurred, and how much."""
        rows = _rows(self.p, shape[0], generator)
        sigma = uniform((shape[0],), *self.sigma, generator)

        def apply(images: Tensor, drawn: Iterator[Tensor]) -> Tensor:
            rows, sigma = next(drawn), next(drawn)
            return choose(rows, gaussian_blur(images, sigma, self.kernel_size), images)

        return Drawn((rows, sigma), apply)


def _rows(p: float, batch: int, generator: torch.Generator) -> Tensor:
    """Draws, with probability `p` for each image, rows for `choose`."""
    return chosen_rows(uniform((batch,), 0, 1, generator) < p)
