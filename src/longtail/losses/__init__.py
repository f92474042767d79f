"""Losses: one file each, a pure function and a thin module that holds the prior."""

from longtail.losses.balanced_contrastive import BalancedContrastive, balanced_contrastive_loss
from longtail.losses.base import ClassificationLoss
from longtail.losses.class_scores import class_scores
from longtail.losses.cross_entropy import (
    ClassBalanced,
    CrossEntropy,
    Reweighted,
    effective_number_weight,
    inverse_frequency_weight,
)
from longtail.losses.distillation import Distillation, distillation_loss
from longtail.losses.focal import Focal, focal_loss
from longtail.losses.gml import GML, gml_loss
from longtail.losses.lade import LADE, lade_regularizer
from longtail.losses.ldam import LDAM, ldam_loss
from longtail.losses.logit_adjusted import LogitAdjusted, logit_adjusted_loss
from longtail.losses.paco import PaCo, paco_loss
from longtail.losses.proco import ProCo, proco_loss, vmf_scores
from longtail.losses.supervised_contrastive import (
    SupervisedContrastive,
    supervised_contrastive_loss,
)

__all__ = [
    "GML",
    "LADE",
    "LDAM",
    "BalancedContrastive",
    "ClassBalanced",
    "ClassificationLoss",
    "CrossEntropy",
    "Distillation",
    "Focal",
    "LogitAdjusted",
    "PaCo",
    "ProCo",
    "Reweighted",
    "SupervisedContrastive",
    "balanced_contrastive_loss",
    "class_scores",
    "distillation_loss",
    "effective_number_weight",
    "focal_loss",
    "gml_loss",
    "inverse_frequency_weight",
    "lade_regularizer",
    "ldam_loss",
    "logit_adjusted_loss",
    "paco_loss",
    "proco_loss",
    "supervised_contrastive_loss",
    "vmf_scores",
]
