"""Making a method for pixels from its name and settings."""

import inspect
from collections.abc import Mapping
from typing import Any

from longtail.losses import ClassificationLoss
from longtail.methods.create import find_method
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
        rest = {key: value for key, value in settings.items() if key != "loss"}
        loss = found(prior, **settings.get("loss", {}))
        return PixelClassifier(prior, backbone, loss=loss, **{"head": loss.head, **rest})
    if not issubclass(found, PixelMethod):
        raise ValueError(f"method {name!r} must be a PixelMethod for segmentation, got {found!r}")
    make: Any = found
    offered = {"image_prior": image_prior, "teacher": teacher}
    wanted = {k: v for k, v in offered.items() if k in inspect.signature(found).parameters}
    method: PixelMethod = make(prior, backbone, **wanted, **settings)
    return method
