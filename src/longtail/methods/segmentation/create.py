"""Making a method for pixels from its name and settings."""

import inspect
from collections.abc import Mapping
from typing import Any

from longtail.losses import ClassificationLoss
from longtail.methods.create import find_method, with_loss
from longtail.methods.segmentation.base import PixelClassifier, PixelMethod
from longtail.models import DenseBackbone, Segmenter
from longtail.prior import ClassPrior


def create_pixel_method(
    name: str,
    settings: Mapping[str, Any],
    prior: ClassPrior,
    image_prior: ClassPrior,
    backbone: DenseBackbone,
    teacher: Segmenter | None = None,
) -> PixelMethod:
    """Makes a method for pixels.

    Args:
        name: see `longtail.methods.find_method`, with the task `segmentation`.
        settings: of the class; those of a classification loss lie under `loss`.
        prior: pixels of each class in the training set.
        image_prior: training images that have each class; for a method that takes it.
        backbone: the network to train.
        teacher: for a method that can use one.

    Raises:
        ValueError: when the method is none for pixels.
    """
    found = find_method(name, "segmentation")
    if issubclass(found, ClassificationLoss):
        return PixelClassifier(prior, backbone, **with_loss(found, prior, settings))
    if found.teacher_method:
        settings = {**settings, "teacher": teacher}
    if "image_prior" in inspect.signature(found).parameters:
        settings = {**settings, "image_prior": image_prior}
    make: Any = found
    method: PixelMethod = make(prior, backbone, **settings)
    return method
