"""Augmentation of whole batches on the device: operations, policies, views, mixing."""

from longtail.augment.batched import Drawn, Operation
from longtail.augment.colour import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    greyscale,
    hue,
    invert,
    posterize,
    saturation,
    solarize,
    solarize_add,
)
from longtail.augment.filters import gaussian_blur, sharpness
from longtail.augment.geometry import (
    affine,
    affine_matrix,
    crop,
    cutout,
    flip,
    resized_crop,
)
from longtail.augment.mix import CutMix, MixedBatch, Mixup
from longtail.augment.policies import AutoAugment
from longtail.augment.rand_augment import RandAugment
from longtail.augment.transforms import (
    ColorJitter,
    Cutout,
    RandomAffine,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomGreyscale,
    RandomResizedCrop,
)
from longtail.augment.views import VIEWS, View, draw_views, make_views, named_view

__all__ = [
    "VIEWS",
    "AutoAugment",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "Drawn",
    "MixedBatch",
    "Mixup",
    "Operation",
    "RandAugment",
    "RandomAffine",
    "RandomBlur",
    "RandomCrop",
    "RandomFlip",
    "RandomGreyscale",
    "RandomResizedCrop",
    "View",
    "affine",
    "affine_matrix",
    "autocontrast",
    "brightness",
    "contrast",
    "crop",
    "cutout",
    "draw_views",
    "equalize",
    "flip",
    "gaussian_blur",
    "greyscale",
    "hue",
    "invert",
    "make_views",
    "named_view",
    "posterize",
    "resized_crop",
    "saturation",
    "sharpness",
    "solarize",
    "solarize_add",
]
