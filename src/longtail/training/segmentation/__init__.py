"""Training, judging and using segmentation models."""

from longtail.training.segmentation.config import PixelConfig
from longtail.training.segmentation.evaluate import judge_pixels
from longtail.training.segmentation.input import evaluation_pairs
from longtail.training.segmentation.predict import (
    classes_of,
    confusion_of,
    dense_logits,
    target_of,
)
from longtail.training.segmentation.predict_files import Segmented, segment_files
from longtail.training.segmentation.run import PixelRun
from longtail.training.segmentation.train import train_pixels

__all__ = [
    "PixelConfig",
    "PixelRun",
    "Segmented",
    "classes_of",
    "confusion_of",
    "dense_logits",
    "evaluation_pairs",
    "judge_pixels",
    "segment_files",
    "target_of",
    "train_pixels",
]
