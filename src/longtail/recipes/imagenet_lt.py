"""ImageNet-LT (`--data.root` is the folder of ImageNet, with the list files or `--data.lists`).

Where a paper omits a setting, its published code decides. Differences: cosine classifiers are
initialised as everywhere in this package, and images are normalised as in timm.

The published accuracies of LADE, its cross-entropy and BCL are those of the epoch that is best on
the validation set; ours are those of the last epoch.
"""

from typing import Any

from longtail.recipes.recipe import NOT_PUBLISHED, Recipe, overlay

# Hong et al., CVPR 2021: their cross-entropy, which PC-Softmax adjusts after training.
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
    "method": {"head": "linear_default"},
}
LADE: dict[str, Any] = {
    **overlay(CE, {"method": {"loss": {"alpha": 0.05, "remine_lambda": 0.5}}}),
    "epochs": 180,
    "lr": 0.05,
}
# Suh and Seo, ICML 2023: the loss of their teacher, and their baseline.
LOGIT_ADJUST: dict[str, Any] = {
    **CE,
    "views": "rand",
    "batch_size": 128,
    "lr": 0.05,
    "lr_batch": 128,
    "method": {"head": "cosine"},
}
# Zhu et al., CVPR 2022, with their views "sim-sim". Their "rand-rand" has RandAugment after `sim`,
# whose hue and probability of the jitter differ from those of GML's `rand_stack`.
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
    Recipe("imagenet-lt", method, settings, expected=expected, options="--data.root DIR")
    for method, settings, expected in (
        (
            "ce",
            CE,
            "43.1, as PC-Softmax 48.9 (Hong et al., best epoch on validation; 52.2 by others)",
        ),
        ("logit_adjust", LOGIT_ADJUST, NOT_PUBLISHED),
        ("lade", LADE, "53.0 (the paper, best epoch on validation)"),
        (
            "bcl",
            BCL,
            "57.2 with these views, 57.8 with rand-rand (the paper, best epoch on validation)",
        ),
        ("gml", GML, "58.3 (the paper)"),
    )
]
