"""CIFAR-10-LT and CIFAR-100-LT: the settings of the papers, ResNet-32, 200 epochs.

Suh and Seo, ICML 2023 (GML, its teacher and its classifier-only baseline) train with AutoAugment
and Cutout; the figure for plain cross-entropy is that of Cao et al., NeurIPS 2019, with crop and
flip alone.
"""

from typing import Any

from longtail.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "backbone": "resnet32",
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "step",
    "warmup": 5 / 200,
    "milestones": [0.8, 0.9],
}
GML_SETTINGS: dict[str, Any] = {
    **SETTINGS,
    "views": "auto",
    "method": {"queue_size": 4096, "queue_base": 2, "width": 32, "temperature": 0.1},
    "teacher": "train",
    "teacher_stage": {"backbone": "resnet56"},
}

CIFAR_LT = [
    Recipe(source, method, settings, expected=expected)
    for source, figures in {
        "cifar100-lt": {"ce": "38.3 (LDAM's table)", "gml": "53.0 (the paper)"},
        "cifar10-lt": {"gml": "85.2 (others' re-run)"},
    }.items()
    for method, settings in {
        "ce": {**SETTINGS, "views": "weak"},
        "logit_adjust": {**SETTINGS, "views": "auto"},
        "gml": GML_SETTINGS,
    }.items()
    for expected in [figures.get(method, "none published for these settings")]
]
