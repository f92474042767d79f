"""Training methods for pixels: one file each, the whole step on one screen."""

from longtail.methods.segmentation.base import PixelClassifier, PixelMethod
from longtail.methods.segmentation.bcl import PixelBCL
from longtail.methods.segmentation.create import create_pixel_method
from longtail.methods.segmentation.gml import PixelGML
from longtail.methods.segmentation.pixels import (
    SampledPixels,
    pixel_loss,
    sample_pixels,
    shrink,
)

__all__ = [
    "PixelBCL",
    "PixelClassifier",
    "PixelGML",
    "PixelMethod",
    "SampledPixels",
    "create_pixel_method",
    "pixel_loss",
    "sample_pixels",
    "shrink",
]
