"""Backbones, heads and averages of weights."""

from longtail.models.backbone import Backbone
from longtail.models.cifar_resnet import (
    CifarResNet,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from longtail.models.create import backbone_names, create_backbone, create_head
from longtail.models.efficientnet_lite import EfficientNetLite, efficientnet_lite0
from longtail.models.ema import update_ema
from longtail.models.heads import CosineHead, ImageClassifier, LinearHead, Projection
from longtail.models.small import SmallNet, smallnet, smallnet_wide
from longtail.models.timm_backbone import TimmBackbone

__all__ = [
    "Backbone",
    "CifarResNet",
    "CosineHead",
    "EfficientNetLite",
    "ImageClassifier",
    "LinearHead",
    "Projection",
    "SmallNet",
    "TimmBackbone",
    "backbone_names",
    "create_backbone",
    "create_head",
    "efficientnet_lite0",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "smallnet",
    "smallnet_wide",
    "update_ema",
]
