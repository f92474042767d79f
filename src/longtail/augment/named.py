"""Batched operations by the names that AutoAugment and RandAugment give them."""

from collections.abc import Callable

from torch import Tensor

from longtail.augment import colour
from longtail.augment.batched import ParameterisedOperation
from longtail.augment.filters import sharpness

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "AutoContrast": colour.autocontrast,
    "Equalize": colour.equalize,
    "Invert": colour.invert,
}
# Called with one value per image.
VALUED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": colour.brightness,
    "Color": colour.saturation,
    "Contrast": colour.contrast,
    "Sharpness": sharpness,
    "Posterize": colour.posterize,
    "Solarize": colour.solarize,
    "SolarizeAdd": colour.solarize_add,
}


def named_operation(name: str) -> ParameterisedOperation:
    """The operation with a name of PLAIN or VALUED, whose value is the first parameter."""
    if name in PLAIN:
        plain = PLAIN[name]
        return lambda images, _: plain(images)
    valued = VALUED[name]
    return lambda images, parameters: valued(images, parameters[:, 0])
