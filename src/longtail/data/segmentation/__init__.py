"""Images with a class for every pixel: layouts, pixel counts, pairs of image and mask."""

from longtail.data.segmentation.colours import class_colours, mask_picture, save_png
from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.counts import BadPairsError
from longtail.data.segmentation.dataset import PixelDataset, PixelSplit
from longtail.data.segmentation.load import PIXEL_SOURCES, load_pixels
from longtail.data.segmentation.masks import (
    ColourCoding,
    IndexCoding,
    read_class_names,
    read_palette,
)
from longtail.data.segmentation.pairs import PairReader, RandomPairCrops, scaled_size
from longtail.masks import IGNORED

__all__ = [
    "IGNORED",
    "PIXEL_SOURCES",
    "BadPairsError",
    "ColourCoding",
    "IndexCoding",
    "PairReader",
    "PixelDataConfig",
    "PixelDataset",
    "PixelSplit",
    "RandomPairCrops",
    "class_colours",
    "load_pixels",
    "mask_picture",
    "read_class_names",
    "read_palette",
    "save_png",
    "scaled_size",
]
