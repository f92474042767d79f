"""Losses: a pure function and a thin module that holds the prior, one file each."""

from longtail.losses.balanced_contrastive import BalancedContrastiveLoss, balanced_contrastive_loss
from longtail.losses.base import ClassificationLoss
from longtail.losses.class_scores import class_scores
from longtail.losses.cross_entropy import (
    ClassBalancedLoss,
    CrossEntropyLoss,
    ReweightedLoss,
    effective_number_weight,
    inverse_frequency_weight,
)
from longtail.losses.dbm import DBMLoss, dbm_loss
from longtail.losses.distillation import DistillationLoss, distillation_loss
from longtail.losses.focal import FocalLoss, focal_loss
from longtail.losses.gml import GMLLoss, gml_loss
from longtail.losses.lade import LADELoss, lade_regularizer
from longtail.losses.ldam import LDAMLoss, ldam_loss
from longtail.losses.logit_adjusted import LogitAdjustedLoss, logit_adjusted_loss
from longtail.losses.paco import PaCoLoss, paco_loss
from longtail.losses.proco import ProCoLoss, proco_loss, vmf_scores
from longtail.losses.supervised_contrastive import (
    SupervisedContrastiveLoss,
    supervised_contrastive_loss,
)

__all__ = [
    "BalancedContrastiveLoss",
    "ClassBalancedLoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "DBMLoss",
    "DistillationLoss",
    "FocalLoss",
    "GMLLoss",
    "LADELoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "PaCoLoss",
    "ProCoLoss",
    "ReweightedLoss",
    "SupervisedContrastiveLoss",
    "balanced_contrastive_loss",
    "class_scores",
    "dbm_loss",
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
