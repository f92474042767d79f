"""ImageNet-LT (`--data.root` is the folder of ImageNet, with the list files or `--data.lists`).

Where the papers leave something out, their published code decides. Departures: classifier weights
are initialised, and images normalised, as everywhere in this package and in timm.
"""

from typing import Any

from longtail.recipes.recipe import NOT_PUBLISHED, Recipe

# Hong et al., CVPR 2021: their cross-entropy, which PC-Softmax corrects afterwards.
CE: dict[str, Any] = {
    "backbone": "resnext50_32x4d",
    "views": "jitter",
    "epochs": 90,
    "batch_size": 256,
    "lr": 0.2,
    "lr_batch": 256,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "warmup": 0.0,
}
LADE: dict[str, Any] = {
    **CE,
    "epochs": 180,
    "lr": 0.05,
    "method": {"loss": {"alpha": 0.05, "remine_lambda": 0.5}},
}
# Suh and Seo, ICML 2023: the loss that trains their teacher and is their baseline.
LOGIT_ADJUST: dict[str, Any] = {
    **CE,
    "views": "rand",
    "batch_size": 128,
    "lr": 0.05,
    "lr_batch": 128,
    "method": {"head": "cosine"},
}
# Zhu et al., CVPR 2022; of the views that they compare, "sim-sim".
BCL: dict[str, Any] = {
    **CE,
    "views": ["rand", "sim", "sim"],
    "lr": 0.1,
    "method": {
        "classifier_weight": 1.0,
        "contrast_weight": 0.35,
        "temperature": 0.07,
        "hidden": 2048,
        "width": 1024,
    },
}
GML: dict[str, Any] = {
    **LOGIT_ADJUST,
    "views": ["rand", "rand_stack", "rand_stack"],
    "method": {
        "queue_size": 16384,
        "queue_base": 3,
        "width": 1024,
        "hidden": 2048,
        "temperature": 0.07,
        "alpha": 0.0,
        "beta": 1.0,
        "gamma": 1.0,
    },
    "teacher": "train",
    "teacher_stage": {"backbone": "resnext101_32x8d", "views": "rand"},
}

IMAGENET_LT = [
    Recipe("imagenet_lt", method, settings, expected=expected, options="--data.root DIR")
    for method, settings, expected in (
        ("ce", CE, NOT_PUBLISHED),
        ("logit_adjust", LOGIT_ADJUST, NOT_PUBLISHED),
        ("lade", LADE, "53.0 (the paper)"),
        ("bcl", BCL, "57.2 (the paper)"),
        ("gml", GML, "58.3 (the paper)"),
    )
]
