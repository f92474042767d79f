"""Backbones, heads and averages of weights."""

from longtail.models.backbone import Backbone
from longtail.models.cifar_resnet import (
    CifarResNet,
    resnet20,
    resnet32,
    resnet32_branched,
    resnet44,
    resnet56,
    resnet110,
)
from longtail.models.create import (
    backbone_names,
    create_backbone,
    create_dense_backbone,
    create_head,
    dense_backbone_names,
)
from longtail.models.dense import (
    DenseBackbone,
    DenseCosineHead,
    DenseLinearHead,
    Segmenter,
    create_dense_head,
    upsample,
)
from longtail.models.dense_timm import TimmDense
from longtail.models.efficientnet_lite import EfficientNetLite, efficientnet_lite0
from longtail.models.ema import update_ema
from longtail.models.frozen import Frozen
from longtail.models.heads import CosineHead, ImageClassifier, LinearHead, Projection
from longtail.models.small import SmallNet, smallnet, smallnet_wide
from longtail.models.small_unet import SmallUNet, small_unet
from longtail.models.timm_backbone import TimmBackbone
from longtail.models.tuning import Tuning, merge_lora, tune_backbone

__all__ = [
    "Backbone",
    "CifarResNet",
    "CosineHead",
    "DenseBackbone",
    "DenseCosineHead",
    "DenseLinearHead",
    "EfficientNetLite",
    "Frozen",
    "ImageClassifier",
    "LinearHead",
    "Projection",
    "Segmenter",
    "SmallNet",
    "SmallUNet",
    "TimmBackbone",
    "TimmDense",
    "Tuning",
    "backbone_names",
    "create_backbone",
    "create_dense_backbone",
    "create_dense_head",
    "create_head",
    "dense_backbone_names",
    "efficientnet_lite0",
    "merge_lora",
    "resnet20",
    "resnet32",
    "resnet32_branched",
    "resnet44",
    "resnet56",
    "resnet110",
    "small_unet",
    "smallnet",
    "smallnet_wide",
    "tune_backbone",
    "update_ema",
    "upsample",
]
