"""AutoAugment with the policy of CIFAR-10."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

import torch
from torch import Tensor

from longtail.augment.batched import Drawn, Operation, ParameterisedOperation, chosen_operations
from longtail.augment.geometry import affine, affine_matrix
from longtail.augment.named import named_operation
from longtail.ranges import check_range

# name, probability and level in [0, 9] of the two operations of each sub-policy
CIFAR10_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
COLOURING = ("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize")
PARAMETERLESS = ("AutoContrast", "Equalize", "Invert")
# All geometric operations are affine, each with its own matrix.
OPERATIONS = ("Identity", "Affine", *COLOURING, *PARAMETERLESS)


@dataclass(frozen=True)
class AutoAugment(Operation):
    """AutoAugment with the policy learned on CIFAR-10: two of 16 operations per image.

    Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019,
    arXiv 1805.09501. The same sub-policies, probabilities and magnitudes as torchvision's
    `AutoAugmentPolicy.CIFAR10`, and the same pixels as its v2 operations on uint8 tensors.

    Args:
        fill: value of pixels from outside the image; 0 in torchvision, 128 in the code of several
            papers on long-tailed recognition.

    Raises: ValueError: when `fill` is not in [0, 255].
    Examples:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> AutoAugment()(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    fill: int = 0

    def __post_init__(self) -> None:
        check_range("fill of AutoAugment", self.fill, least=0, most=255)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws two steps of the policy, for images (B, 3, H, W)."""
        choice, parameters = _table(*shape[2:])
        rows = self.rows(shape[0], generator)
        return chosen_operations(choice[rows], parameters[rows], _operations(self.fill))

    def rows(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draws the row of `cifar10_rows` for each stage and image, (2, B) int64, on the CPU."""
        policy = torch.randint(len(CIFAR10_POLICY), (batch,), generator=generator)
        positive = torch.randint(2, (2, batch), generator=generator)
        stage = torch.arange(2).unsqueeze(1)
        probability = _probabilities()[policy, stage]
        chosen = torch.rand((2, batch), generator=generator) < probability
        return torch.where(chosen, 1 + (policy * 2 + stage) * 2 + positive, 0)


PolicyStep = tuple[str, int, int]  # operation, level, sign


@lru_cache
def cifar10_rows() -> tuple[PolicyStep, ...]:
    """No operation, then each operation of the policy with a negative and a positive sign."""
    steps = [step for policy in CIFAR10_POLICY for step in policy]
    return (
        ("Identity", 0, 1),
        *((name, level, sign) for (name, _, level), sign in product(steps, (-1, 1))),
    )


@lru_cache
def _probabilities() -> Tensor:
    """(sub-policy, stage)."""
    return torch.tensor([[p for _, p, _ in policy] for policy in CIFAR10_POLICY])


def magnitude(name: str, level: int, bins: int, height: int, width: int) -> float:
    """Strength of an operation at a level out of `bins`, in float32 steps as in torchvision."""
    if name == "Posterize":
        return float(8 - round(level / ((bins - 1) / 4)))
    low, high = {
        "ShearX": (0.0, 0.3),
        "ShearY": (0.0, 0.3),
        "TranslateX": (0.0, 150 / 331 * width),
        "TranslateY": (0.0, 150 / 331 * height),
        "Rotate": (0.0, 30.0),
        "Solarize": (1.0, 0.0),
    }.get(name, (0.0, 0.9))
    return float(torch.linspace(low, high, bins)[level])


def _matrix(name: str, strength: float, height: int, width: int) -> Tensor:
    """Matrix of the pixel sources of a geometric operation, (2, 3)."""
    angle, translate, shear, centre = 0.0, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    if name == "Rotate":
        angle = -strength  # counter-clockwise, unlike `affine`
    elif name.startswith("Translate"):
        translate[name == "TranslateY"] = math.trunc(strength)
    else:
        shear[name == "ShearY"] = math.degrees(math.atan(strength))
        centre = [-width / 2, -height / 2]  # about the image's upper left corner
    return affine_matrix(
        torch.tensor([angle]),
        translate=torch.tensor([translate]),
        shear=torch.tensor([shear], dtype=torch.float64),
        centre=torch.tensor(centre),
    )[0]


@lru_cache
def _table(height: int, width: int) -> tuple[Tensor, Tensor]:
    """For each of `cifar10_rows` its index in OPERATIONS, and the parameters (rows, 6)."""
    rows = cifar10_rows()
    choice, parameters = [], torch.zeros(len(rows), 6, dtype=torch.float64)
    for row, (name, level, sign) in enumerate(rows):
        choice.append(OPERATIONS.index("Affine" if name in GEOMETRIC else name))
        strength = magnitude(name, level, 10, height, width)
        if name in GEOMETRIC:
            parameters[row] = _matrix(name, sign * strength, height, width).flatten()
        elif name == "Posterize":
            parameters[row, 0] = strength
        elif name == "Solarize":
            parameters[row, 0] = 255 * strength
        else:
            parameters[row, 0] = 1 + sign * strength
    return torch.tensor(choice), parameters


def _operations(fill: int) -> Sequence[ParameterisedOperation | None]:
    """The functions of OPERATIONS, in the same order."""
    return (
        None,
        partial(_affine, fill=fill),
        *(named_operation(name) for name in (*COLOURING, *PARAMETERLESS)),
    )


def _affine(images: Tensor, values: Tensor, fill: int) -> Tensor:
    return affine(images, values.view(-1, 2, 3), fill)
