"""Segmentation: data, networks, methods, metrics and runs of images with one class per pixel."""

from longtail.segmentation.config import PixelConfig
from longtail.segmentation.counts import BadPairsError
from longtail.segmentation.create import create_dense_backbone, dense_backbone_names
from longtail.segmentation.dataset import PixelDataset, PixelSplit, load_pixels
from longtail.segmentation.evaluate import evaluate_pixels
from longtail.segmentation.input import evaluation_pairs
from longtail.segmentation.layouts import PIXEL_SOURCES, PixelDataConfig
from longtail.segmentation.masks import (
    IGNORED,
    ColourCoding,
    IndexCoding,
    class_colours,
    read_class_names,
    read_palette,
)
from longtail.segmentation.methods import (
    PixelBCL,
    PixelClassifier,
    PixelGML,
    PixelMethod,
    create_pixel_method,
    pixel_loss,
)
from longtail.segmentation.metrics import (
    class_accuracy,
    class_iou,
    pixel_confusion,
    pixel_groups,
    segmentation_metrics,
)
from longtail.segmentation.model import DenseBackbone, Segmenter, upsample
from longtail.segmentation.pairs import PairReader, RandomPairCrops
from longtail.segmentation.predict import classes_of, confusion_of, dense_logits, target_of
from longtail.segmentation.predict_files import Segmented, segment_files
from longtail.segmentation.run import PixelRun
from longtail.segmentation.small_unet import SmallUNet, small_unet
from longtail.segmentation.timm_model import TimmDense
from longtail.segmentation.views import PAIRED_VIEWS, PairedView, named_paired_view

__all__ = [
    "IGNORED",
    "PAIRED_VIEWS",
    "PIXEL_SOURCES",
    "BadPairsError",
    "ColourCoding",
    "DenseBackbone",
    "IndexCoding",
    "PairReader",
    "PairedView",
    "PixelBCL",
    "PixelClassifier",
    "PixelConfig",
    "PixelDataConfig",
    "PixelDataset",
    "PixelGML",
    "PixelMethod",
    "PixelRun",
    "PixelSplit",
    "RandomPairCrops",
    "Segmented",
    "Segmenter",
    "SmallUNet",
    "TimmDense",
    "class_accuracy",
    "class_colours",
    "class_iou",
    "classes_of",
    "confusion_of",
    "create_dense_backbone",
    "create_pixel_method",
    "dense_backbone_names",
    "dense_logits",
    "evaluate_pixels",
    "evaluation_pairs",
    "load_pixels",
    "named_paired_view",
    "pixel_confusion",
    "pixel_groups",
    "pixel_loss",
    "read_class_names",
    "read_palette",
    "segment_files",
    "segmentation_metrics",
    "small_unet",
    "target_of",
    "upsample",
]
