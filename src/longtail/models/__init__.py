"""Backbones, heads and averages of weights."""

from longtail.models.backbone import Backbone, Encoder
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
    create_dense_head,
    create_head,
    exported_makers,
    is_own_backbone,
    make_named,
)
from longtail.models.efficientnet_lite import EfficientNetLite, efficientnet_lite0
from longtail.models.ema import update_ema
from longtail.models.frozen import Frozen
from longtail.models.heads import (
    CosineHead,
    DenseCosineHead,
    DenseHead,
    DenseLinearHead,
    ImageClassifier,
    LinearHead,
    Projection,
)
from longtail.models.side_by_side import ensemble
from longtail.models.small import SmallNet, smallnet, smallnet_wide
from longtail.models.timm_backbone import TimmBackbone, is_timm_model
from longtail.models.tuning import Tuning, merge_lora, tune_backbone

__all__ = [
    "Backbone",
    "CifarResNet",
    "CosineHead",
    "DenseCosineHead",
    "DenseHead",
    "DenseLinearHead",
    "EfficientNetLite",
    "Encoder",
    "Frozen",
    "ImageClassifier",
    "LinearHead",
    "Projection",
    "SmallNet",
    "TimmBackbone",
    "Tuning",
    "backbone_names",
    "create_backbone",
    "create_dense_head",
    "create_head",
    "efficientnet_lite0",
    "ensemble",
    "exported_makers",
    "is_own_backbone",
    "is_timm_model",
    "make_named",
    "merge_lora",
    "resnet20",
    "resnet32",
    "resnet32_branched",
    "resnet44",
    "resnet56",
    "resnet110",
    "smallnet",
    "smallnet_wide",
    "tune_backbone",
    "update_ema",
]
