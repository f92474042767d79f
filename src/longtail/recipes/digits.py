"""digits-lt: built-in, long-tailed digits of scikit-learn; a minute on two cores."""

from typing import Any

from longtail.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "views": "shift",
    "epochs": 100,
    "batch_size": 64,
    "lr": 0.1,
    "schedule": "cosine",
    "warmup": 0.05,
    "precision": "32-true",
}
COST = "under a minute on two cores"
MEASURED = "results/digits-lt.json"

DIGITS = [
    Recipe("digits-lt", "ce", SETTINGS, COST, MEASURED),
    Recipe("digits-lt", "logit_adjust", SETTINGS, COST, MEASURED),
    *(Recipe("digits-lt", method, SETTINGS, COST) for method in ("lade", "bcl", "paco", "proco")),
    Recipe(
        "digits-lt",
        "gml",
        {
            **SETTINGS,
            # No distillation, as on ImageNet-LT: a teacher trained on 411 digits adds little
            # beyond its features.
            "method": {"queue_size": 256, "queue_base": 4, "alpha": 0.0},
            "teacher": "train",
            "teacher_stage": {"backbone": "smallnet_wide"},
        },
        "about a minute on two cores, teacher included",
        MEASURED,
    ),
]
