"""Training methods for pixels, with the whole step of each in one file."""

from longtail.segmentation.methods.base import PixelClassifier, PixelMethod, create_pixel_method
from longtail.segmentation.methods.bcl import PixelBCL
from longtail.segmentation.methods.gml import PixelGML
from longtail.segmentation.methods.pixels import (
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
