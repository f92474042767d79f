"""The iNaturalist 2018 set (`--data.root` is its folder, with the lists or `--data.lists`).

GML's backbone and epochs are the paper's; its code has no settings for this data set. The rest is
as on ImageNet-LT, except for the weight decay, which is that of all other methods on this data set,
and for the queue, which has four keys of even the rarest class, and the teacher, which are our
choice.

The published accuracies of LADE, its cross-entropy and BCL are those of the epoch that is best on
the test set; ours are those of the last epoch.
"""

from typing import Any

from longtail.recipes.imagenet_lt import BCL as BCL_IMAGENET
from longtail.recipes.imagenet_lt import GML as GML_IMAGENET
from longtail.recipes.recipe import NOT_PUBLISHED, Recipe, overlay

# Hong et al., CVPR 2021.
CE: dict[str, Any] = {
    "backbone": "resnet50",
    "views": "weak",
    "epochs": 200,
    "batch_size": 256,
    "lr": 0.1,
    "lr_batch": 256,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup": 0.0,
    "method": {"head": "linear_default"},
}
LADE = overlay(CE, {"method": {"loss": {"alpha": 0.05, "remine_lambda": 0.5}}})
# Zhu et al., CVPR 2022, and their classifier branch alone.
BCL: dict[str, Any] = {
    **CE,
    "views": BCL_IMAGENET["views"],
    "epochs": 100,
    "lr": 0.2,
    "method": BCL_IMAGENET["method"],
}
LOGIT_ADJUST: dict[str, Any] = {**BCL, "views": "rand", "method": {"head": "cosine"}}
GML: dict[str, Any] = {
    **GML_IMAGENET,
    "backbone": "resnet50",
    "epochs": 100,
    "weight_decay": 1e-4,
    "method": {**GML_IMAGENET["method"], "queue_size": 65536, "queue_base": 4},
    "teacher_stage": {"backbone": "resnet152", "views": "rand"},
}

INATURALIST18 = [
    Recipe("inaturalist18", method, settings, expected=expected, options="--data.root DIR")
    for method, settings, expected in (
        ("ce", CE, "65.0, as PC-Softmax 69.3 (Hong et al., best epoch)"),
        ("logit_adjust", LOGIT_ADJUST, NOT_PUBLISHED),
        ("lade", LADE, "70.0 (the paper, best epoch)"),
        ("bcl", BCL, "71.8 (the paper, best epoch)"),
        ("gml", GML, "73.1 (the paper, whose queue and teacher are not known)"),
    )
]
