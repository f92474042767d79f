"""CIFAR-10-LT and CIFAR-100-LT: the settings of each paper at `--data.imbalance` 10, 50 and 100.

All times are fractions of training, so that `--epochs 400` gives the long variant of a paper
and a smaller number a short one (for a two-stage method, `--first-stage.epochs` sets those of the
first stage; `longtail reproduce --epochs-scale` scales both, and applies LONG). Where a paper gives
no settings for CIFAR or never published them, those of the closest method are used, and a comment
says so.
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
    "warmup_start": 0.0,
    "milestones": [0.8, 0.9],
}
# Cao et al., NeurIPS 2019, as in their code, whose results for cross-entropy are commonly quoted.
LDAM: dict[str, Any] = {
    **COMMON,
    "weight_decay": 2e-4,
    "milestones": [0.8, 0.8, 0.9, 0.9],  # each twice, so that the rate falls to a hundredth
}
# Hong et al., CVPR 2021, as in their code: their network, the start of its classifier, a warm-up
# from a third of the rate, and steps of 0.01 one epoch earlier than the paper's 120 and 160. The
# code keeps the rate constant within an epoch; here the warm-up rises with every step.
LADE: dict[str, Any] = {
    **COMMON,
    "backbone": "resnet32_branched",
    "batch_size": 256,
    "lr": 0.2,
    "warmup_start": 1 / 3,
    "milestones": [119 / 200, 119 / 200, 159 / 200, 159 / 200],
    "method": {"head": "linear_default"},
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
# Kang et al., ICLR 2020, retrain for a tenth of the epochs of the first stage.
RETRAINED: dict[str, Any] = {
    **LDAM,
    "epochs": 20,
    "schedule": "cosine",
    "sampling": "class_balanced",
    "first_stage": {"epochs": 200, "schedule": "step"},  # as `ce`
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ce": LDAM,
    "focal": {**LDAM, "method": {"loss": {"gamma": 1.0}}},  # LDAM's code; 2 in the focal paper
    "class_balanced": LDAM,
    "ldam": LDAM,
    # The baseline of GML's paper: its classifier alone, in its views.
    "logit_adjust": {**COMMON, "views": "auto", "method": {"head": "cosine"}},
    # Son et al., AAAI 2025, as in their code; their classifier's scale is 32.
    "dbm": {
        **COMMON,
        "views": "auto",
        "batch_size": 64,
        "weight_decay": 2e-4,
        "schedule": "cosine",
        "method": {"loss": {"max_margin": 0.1}},
    },
    "lade": overlay(LADE, {"method": {"loss": {"alpha": 0.1, "remine_lambda": 0.01}}}),
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
    # Cui et al., ICCV 2021, who train for 400 epochs; learning rate and width as in the older of
    # their two scripts, alpha as in the paper.
    "paco": {
        **COMMON,
        "lr": 0.02,
        "views": ["auto", "moco"],
        "method": {"queue_size": 1024, "alpha": 0.05, "temperature": 0.05, "width": 64},
    },
    # Du et al., TPAMI 2024, as in their code for CIFAR.
    "proco": {
        **overlay(BCL, {"method": {"contrast_weight": 1.0, "head": "linear_default"}}),
        "lr": 0.3,
        "weight_decay": 2e-4,
    },
    "gml": {**GML, "teacher": "train", "teacher_stage": {"backbone": "resnet56"}},
}
# Settings that depend on the imbalance: Hong et al., CVPR 2021, table of hyperparameters.
MILD_LADE = overlay(SETTINGS["lade"], {"method": {"loss": {"alpha": 0.01}}})
BY_IMBALANCE: dict[tuple[str, int], dict[str, Any]] = {
    ("lade", 50): MILD_LADE,
    ("lade", 10): MILD_LADE,
}
# Further rows of the matrix: a method with changes to its recipe.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce_branched": ("ce", LADE),
    "logit_adjust_branched": ("logit_adjust", LADE),
    "lade_common": ("lade", {**COMMON, "method": {"head": "linear"}}),
    "gml_teacher": ("logit_adjust", SETTINGS["gml"]["teacher_stage"]),
    "gml_momentum": ("gml", {**GML, "teacher": "none"}),
    "gml_dbm": ("gml", {"method": {"max_margin": 0.1}}),
}
# What else the authors change when they train for 400 epochs.
LONG: dict[str, dict[str, Any]] = {"proco": {"milestones": [0.9, 0.95]}}
# Rows that use the run of another row: evaluated for the uniform class prior, taught or retrained.
PC_SOFTMAX = {"pc_softmax": "ce", "pc_softmax_branched": "ce_branched"}
TEACHER = {"gml": "gml_teacher", "gml_dbm": "gml_teacher"}
FIRST_STAGE = {"crt": "ce", "lws": "ce", "tau_norm": "ce"}

PUBLISHED: dict[str, dict[str, Published]] = {
    "cifar100-lt": {
        "ce": {(100, 200): 38.3, (50, 200): 43.9, (10, 200): 55.7},
        "ce_branched": {(100, 200): 41.0, (50, 200): 45.5, (10, 200): 59.0},
        "pc_softmax_branched": {(100, 200): 45.3, (50, 200): 49.5, (10, 200): 61.2},
        "logit_adjust_branched": {(50, 200): 49.9, (10, 200): 61.6},
        "lade": {(100, 200): 45.4, (50, 200): 50.5, (10, 200): 61.7},
        "dbm": {(100, 200): 51.3, (50, 200): 55.8, (10, 200): 65.2},
        "bcl": {(100, 200): 51.9, (50, 200): 56.6, (10, 200): 64.9},
        "proco": {(100, 200): 52.8, (50, 200): 57.1, (10, 200): 65.5, (100, 400): 54.2},
        "gml": {
            **{(100, 200): 53.0, (50, 200): 57.6, (10, 200): 65.7},
            **{(100, 400): 54.0, (50, 400): 58.1, (10, 400): 67.0},
        },
    },
    "cifar10-lt": {
        "lade": {(10, 200): 88.8},
        "dbm": {(100, 200): 84.6, (50, 200): 87.1, (10, 200): 91.4},
        "bcl": {(100, 200): 84.3, (50, 200): 87.2, (10, 200): 91.1},
        "gml": {(100, 200): 85.2, (50, 200): 88.1, (10, 200): 92.1},
    },
}
# Origin of published results that are not of the authors' last epoch: the code of LDAM (whose
# table has cross-entropy), of ProCo and of DBM reports the epoch that is best on the test set.
NOTES: dict[tuple[str, str], str] = {
    ("cifar100-lt", "ce"): "best epoch",
    ("cifar100-lt", "proco"): "best epoch",
    ("cifar100-lt", "dbm"): "best epoch",
    ("cifar10-lt", "dbm"): "best epoch",
    ("cifar10-lt", "gml"): "re-run by others",
}


def published(source: str, row: str, imbalance: int, epochs: int) -> str:
    """The published accuracy of a row in percent, with its origin; `n/a` if there is none.

    Examples:
        >>> published("cifar100-lt", "proco", 100, 200)
        '52.8 (best epoch)'
    """
    accuracy = PUBLISHED[source].get(row, {}).get((imbalance, epochs))
    note = NOTES.get((source, row))
    return "n/a" if accuracy is None else f"{accuracy} ({note})" if note else f"{accuracy}"


# Images per second on one core of a server processor whose other core is busy, with bf16, from
# results/step.json (a test compares the two); for GML, teacher and student one after the other.
# Methods that are not listed are as fast as `ce`.
SPEED = {"ce": 560, "bcl": 185, "proco": 183, "paco": 420, "supcon": 300, "gml": 125}
IMAGES = {"cifar100-lt": 10_847, "cifar10-lt": 12_406}


def _cost(source: str, method: str) -> str:
    hours = 200 * IMAGES[source] / SPEED.get(method, SPEED["ce"]) / 3600
    return (
        f"about {hours:.1f} hours of one processor core with bf16 for 200 epochs at imbalance 100"
    )


def _expected(source: str, method: str, at: int | None = None) -> str:
    """The published accuracies of a method as text, at one imbalance or at all others."""
    others = [imbalance for name, imbalance in BY_IMBALANCE if name == method]
    words = [
        f"{published(source, method, imbalance, epochs)} at imbalance {imbalance}, {epochs} epochs"
        for imbalance, epochs in PUBLISHED[source].get(method, {})
        if imbalance == at or (at is None and imbalance not in others)
    ]
    return "; ".join(words) or NOT_PUBLISHED


CIFAR_LT = [
    Recipe(source, method, settings, _cost(source, method), _expected(source, method))
    for source in PUBLISHED
    for method, settings in SETTINGS.items()
] + [
    Recipe(
        source,
        method,
        settings,
        _cost(source, method),
        _expected(source, method, imbalance),
        imbalance=imbalance,
    )
    for source in PUBLISHED
    for (method, imbalance), settings in BY_IMBALANCE.items()
]
