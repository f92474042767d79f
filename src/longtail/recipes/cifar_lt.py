"""CIFAR-10-LT and CIFAR-100-LT: each paper's settings, for `--data.imbalance` 10, 50 and 100.

All that has a time is a share of the training, so that `--epochs 400` is the long variant of a
paper and any smaller number a short one (of a method in two stages `--first_stage` sets the first
one's; `longtail reproduce --epochs-scale` scales all of them, and knows LONG). Where a paper says
nothing of CIFAR, or never published its settings, those of its nearest kin are taken, and the
comment says so.
"""

from collections.abc import Mapping
from typing import Any

from longtail.recipes.recipe import NOT_PUBLISHED, Recipe, overlay

Published = Mapping[tuple[int, int], float]  # (imbalance, epochs) -> accuracy, percent

COMMON: dict[str, Any] = {
    "backbone": "resnet32",
    "views": "weak",
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "step",
    "warmup": 5 / 200,
    "milestones": [0.8, 0.9],
}
# Cao et al., NeurIPS 2019, as their code has it; the field's figures of cross-entropy are theirs.
LDAM: dict[str, Any] = {
    **COMMON,
    "weight_decay": 2e-4,
    "milestones": [0.8, 0.8, 0.9, 0.9],  # twice each: the rate falls to a hundredth
}
# Hong et al., CVPR 2021: their network, and 0.01 at both milestones.
LADE: dict[str, Any] = {
    **COMMON,
    "backbone": "resnet32_branched",
    "batch_size": 256,
    "lr": 0.2,
    "milestones": [0.6, 0.6, 0.8, 0.8],
}
# Zhu et al., CVPR 2022.
BCL: dict[str, Any] = {
    **COMMON,
    "views": ["auto", "sim", "sim"],
    "batch_size": 256,
    "lr": 0.15,
    "method": {"hidden": 512, "width": 128, "temperature": 0.1},
}
# Suh and Seo, ICML 2023.
GML: dict[str, Any] = {
    **COMMON,
    "views": "auto",
    "method": {"queue_size": 4096, "queue_base": 2, "width": 32, "temperature": 0.1},
}
# Kang et al., ICLR 2020, retrain for a tenth of the time that the first stage took.
RETRAINED: dict[str, Any] = {
    **LDAM,
    "epochs": 20,
    "schedule": "cosine",
    "sampling": "class_balanced",
    "first_stage": {"epochs": 200, "schedule": "step"},  # as `ce`
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ce": LDAM,
    "focal": LDAM,
    "class_balanced": LDAM,
    "ldam": LDAM,
    # The baseline of GML's paper: its classifier alone, in its views.
    "logit_adjust": {**COMMON, "views": "auto", "method": {"head": "cosine"}},
    "lade": {**LADE, "method": {"loss": {"alpha": 0.1, "remine_lambda": 0.01}}},
    "crt": RETRAINED,
    "lws": RETRAINED,
    "tau_norm": {**RETRAINED, "epochs": 0, "sampling": "shuffle"},
    # Khosla et al., NeurIPS 2020, in BCL's views and heads.
    "supcon": {
        **RETRAINED,
        "first_stage": {
            **{key: value for key, value in BCL.items() if key != "method"},
            "views": "sim",
            "method": {"name": "supcon_features", "hidden": 512, "width": 128, "temperature": 0.1},
        },
    },
    "bcl": overlay(BCL, {"method": {"classifier_weight": 2.0, "contrast_weight": 0.6}}),
    # Cui et al., ICCV 2021, who train for 400 epochs; step size and width as in the older of their
    # two scripts, alpha as in the paper.
    "paco": {
        **COMMON,
        "lr": 0.02,
        "views": ["auto", "moco"],
        "method": {"queue_size": 1024, "alpha": 0.05, "temperature": 0.05, "width": 64},
    },
    # Du et al., TPAMI 2024, as in their code for CIFAR.
    "proco": {
        **overlay(BCL, {"method": {"contrast_weight": 1.0, "head": "linear"}}),
        "lr": 0.3,
        "weight_decay": 2e-4,
    },
    "gml": {**GML, "teacher": "train", "teacher_stage": {"backbone": "resnet56"}},
}
# Further rows of the matrix: a method in other settings than its recipe's.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce_branched": ("ce", LADE),
    "lade_common": ("lade", {**SETTINGS["lade"], **COMMON}),
    "gml_momentum": ("gml", {**GML, "teacher": "none"}),
}
# What else the authors change where they train for 400 epochs.
LONG: dict[str, dict[str, Any]] = {"proco": {"milestones": [0.9, 0.95]}}
# Rows that stand on the runs of another one: judged for the uniform class mix, or retrained.
PC_SOFTMAX = {"pc_softmax": "ce", "pc_softmax_branched": "ce_branched"}
FIRST_STAGE = {"crt": "ce", "lws": "ce", "tau_norm": "ce"}

PUBLISHED: dict[str, dict[str, Published]] = {
    "cifar100-lt": {
        "ce": {(100, 200): 38.3, (50, 200): 43.9, (10, 200): 55.7},
        "pc_softmax_branched": {(100, 200): 45.3, (50, 200): 49.5, (10, 200): 61.6},
        "lade": {(100, 200): 45.4, (50, 200): 50.5, (10, 200): 61.7},
        "bcl": {(100, 200): 51.9, (50, 200): 56.6, (10, 200): 64.9},
        "proco": {(100, 200): 52.8, (50, 200): 57.1, (10, 200): 65.5, (100, 400): 54.2},
        "gml": {
            **{(100, 200): 53.0, (50, 200): 57.6, (10, 200): 65.7},
            **{(100, 400): 54.0, (50, 400): 58.1, (10, 400): 67.0},
        },
    },
    "cifar10-lt": {
        "lade": {(10, 200): 88.8},
        "bcl": {(100, 200): 84.3, (50, 200): 87.2, (10, 200): 91.1},
        "gml": {(100, 200): 85.2, (50, 200): 88.1, (10, 200): 92.1},
    },
}


# Images a second of one core of a server processor, whose other core is busy, with bf16, from
# results/step.json (a test holds the two together); GML's is of teacher and student one after the
# other. Those that are not listed are as fast as `ce`.
SPEED = {"ce": 455, "bcl": 150, "proco": 130, "paco": 315, "supcon": 195, "gml": 90}
IMAGES = {"cifar100-lt": 10_847, "cifar10-lt": 12_406}


def _cost(source: str, method: str) -> str:
    hours = 200 * IMAGES[source] / SPEED.get(method, SPEED["ce"]) / 3600
    return f"about {hours:.1f} hours of one processor core for 200 epochs at imbalance 100"


def _expected(source: str, row: str) -> str:
    """The published figures of a row in words."""
    figures = PUBLISHED[source].get(row, {})
    words = [
        f"{accuracy} at imbalance {imbalance}, {epochs} epochs"
        for (imbalance, epochs), accuracy in figures.items()
    ]
    return "; ".join(words) or NOT_PUBLISHED


CIFAR_LT = [
    Recipe(source, method, settings, _cost(source, method), _expected(source, method))
    for source in PUBLISHED
    for method, settings in SETTINGS.items()
]
