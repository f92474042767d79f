"""RandAugment as in the published code on ImageNet-LT, which is timm's, for whole batches."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longtail.augment.batched import Drawn, Operation, ParameterisedOperation, chosen_operations
from longtail.augment.named import named_operation
from longtail.augment.resample import resample
from longtail.errors import InputError
from longtail.ranges import check_range

IMAGENET_MEAN = (124, 116, 104)
LARGEST = 10
# Chosen with equal probability, as in timm's set for a "rand" policy.
RAND_AUGMENT = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "Rotate",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
GEOMETRIC = RAND_AUGMENT[10:]


@dataclass(frozen=True)
class RandAugment(Operation):
    """Random operations of 15 kinds with random strengths, like timm's `rand-n2-m10-mstd0.5`.

    Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space,
    NeurIPS 2020, arXiv 1909.13719, in the version of timm, which the published code of BCL and GML
    uses on ImageNet-LT. Each of `num_ops` operations per image is applied with probability `p`, at
    a magnitude drawn from a normal distribution and clipped to [0, 10].
    Differs from timm's code: it works on tensors, so that single pixels may differ by a level or
    two from those of Pillow.

    Args:
        num_ops: number of operations, applied one after the other.
        magnitude: mean of the magnitude, in [0, 10].
        std: standard deviation of the magnitude, 0 or more.
        p: probability that an operation is applied.
        fill: red, green and blue of pixels from outside the image, in [0, 255].

    Raises: ValueError: when an argument is out of range.
    Examples:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> RandAugment()(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    num_ops: int = 2
    magnitude: float = 10.0
    std: float = 0.5
    p: float = 0.5
    fill: tuple[int, int, int] = IMAGENET_MEAN

    def __post_init__(self) -> None:
        check_range("num_ops of RandAugment", self.num_ops, least=1, whole=True)
        check_range("magnitude of RandAugment", self.magnitude, least=0, most=LARGEST)
        check_range("std of RandAugment", self.std, least=0)
        check_range("p of RandAugment", self.p, least=0, most=1)
        if not all(0 <= value <= 255 for value in self.fill):
            raise InputError(
                f"fill of RandAugment must be three values in [0, 255], got {self.fill}"
            )

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws operations and their strengths, for images (B, 3, H, W)."""
        chosen, level, negative, cubic = self.choices(shape[0], generator)
        choice = torch.zeros_like(chosen)
        parameters = chosen.new_zeros((*chosen.shape, 6), dtype=torch.float64)
        for number, name in enumerate(RAND_AUGMENT, start=1):
            mask = chosen == number
            value = strength(name, level[mask], negative[mask])
            if name in GEOMETRIC:
                parameters[mask] = matrices(name, value, *shape[2:])
                choice[mask] = torch.where(cubic[mask], BICUBIC, BILINEAR)
            else:
                parameters[mask, 0] = value
                choice[mask] = number
        return chosen_operations(choice, parameters, _operations(self.fill))

    def choices(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draws the parameters of each operation and image, (num_ops, B) each, on the CPU.

        Returns: the operation, 0 for none, else its index in RAND_AUGMENT plus 1; its magnitude;
            whether a signed strength is negative; whether the interpolation is bicubic.
        """
        shape = (self.num_ops, batch)
        number = 1 + torch.randint(len(RAND_AUGMENT), shape, generator=generator)
        applied = torch.rand(shape, generator=generator) < self.p
        level = self.magnitude + self.std * torch.randn(
            shape, generator=generator, dtype=torch.float64
        )
        negative, cubic = torch.randint(2, (2, *shape), generator=generator).bool()
        return number * applied, level.clamp(0, LARGEST), negative, cubic


BILINEAR, BICUBIC = len(RAND_AUGMENT) + 1, len(RAND_AUGMENT) + 2


def strength(name: str, level: Tensor, negative: Tensor) -> Tensor:
    """The argument of an operation at magnitudes in [0, 10], in timm's units, float64.

    Args:
        name: one of RAND_AUGMENT.
        level: any shape, magnitudes.
        negative: shape of `level`, whether a signed argument is negative.

    Returns: shape of `level`: degrees, a shear factor or a fraction of the side for the geometric
        operations; bits, a threshold or a summand for Posterize, Solarize and SolarizeAdd; a
        blending factor for the other ones.
    """
    share = level / LARGEST
    if name in GEOMETRIC:
        largest = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3}.get(name, 0.45)
        return torch.where(negative, -share, share) * largest
    steps = {"Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}.get(name)
    return 0.1 + 1.8 * share if steps is None else (share * steps).floor()


def matrices(name: str, value: Tensor, height: int, width: int) -> Tensor:
    """Matrices of the pixel sources of a geometric operation, (N, 6), for `resample`."""
    one, zero = torch.ones_like(value), torch.zeros_like(value)
    if name == "Rotate":
        cos, sin = value.deg2rad().cos(), value.deg2rad().sin()
        x, y = width / 2, height / 2
        rows = (cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos)
    elif name == "ShearX":
        rows = (one, value, zero, zero, one, zero)
    elif name == "ShearY":
        rows = (one, zero, zero, value, one, zero)
    elif name == "TranslateX":
        rows = (one, zero, value * width, zero, one, zero)
    else:
        rows = (one, zero, zero, zero, one, value * height)
    return torch.stack(rows, dim=-1)


def _operations(fill: tuple[int, int, int]) -> tuple[ParameterisedOperation | None, ...]:
    """No operation, those of RAND_AUGMENT, then the two interpolations of the geometric ones."""
    none = (None,) * len(GEOMETRIC)
    return (
        None,
        *(named_operation(name) for name in RAND_AUGMENT if name not in GEOMETRIC),
        *none,
        partial(resample, cubic=False, fill=fill),
        partial(resample, cubic=True, fill=fill),
    )
