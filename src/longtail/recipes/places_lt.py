"""Places-LT (`--data.root` is the folder of Places365, with the list files or `--data.lists`).

ResNet-152 from ImageNet weights, 30 epochs: Hong et al., CVPR 2021, whose code trains the
pretrained backbone at a fiftieth of the classifier's rate. The weights are timm's instead
of those converted from Caffe. BCL and GML have no published accuracy here; they use their heads,
weights and views of ImageNet-LT with this schedule. GML's teacher is a network of the same kind.

The published accuracies are those of the epoch that is best on the validation set; ours are those
of the last epoch.
"""

from typing import Any

from longtail.recipes.imagenet_lt import BCL as BCL_IMAGENET
from longtail.recipes.imagenet_lt import GML as GML_IMAGENET
from longtail.recipes.recipe import NOT_PUBLISHED, Recipe, overlay

CE: dict[str, Any] = {
    "backbone": "resnet152",
    "pretrained": True,
    "views": "jitter",
    "epochs": 30,
    "batch_size": 128,
    "lr": 0.05,
    "lr_batch": 128,
    "backbone_lr": 0.02,
    "weight_decay": 5e-4,
    "schedule": "step",
    "milestones": [1 / 3, 2 / 3],
    "warmup": 0.0,
    "method": {"head": "linear_default"},
}
LADE = overlay(CE, {"method": {"loss": {"alpha": 0.005, "remine_lambda": 0.1}}})
BCL: dict[str, Any] = {
    **CE,
    "views": BCL_IMAGENET["views"],
    "method": BCL_IMAGENET["method"],
}
GML: dict[str, Any] = {
    **CE,
    "views": GML_IMAGENET["views"],
    "method": GML_IMAGENET["method"],
    "teacher": "train",
    "teacher_stage": {"views": "rand"},
}

PLACES_LT = [
    Recipe("places-lt", method, settings, expected=expected, options="--data.root DIR")
    for method, settings, expected in (
        ("ce", CE, "31.5, as PC-Softmax 38.7 (Hong et al., best epoch on validation)"),
        ("logit_adjust", CE, "38.6 (Balanced Softmax of Hong et al., best epoch on validation)"),
        ("lade", LADE, "38.8 (the paper, best epoch on validation)"),
        ("bcl", BCL, NOT_PUBLISHED),
        ("gml", GML, NOT_PUBLISHED),
    )
]
