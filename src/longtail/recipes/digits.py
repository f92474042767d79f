"""digits-lt: scikit-learn's digits, long-tailed; built in, trained in seconds on two cores."""

from typing import Any

from longtail.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "views": "shift",
    "epochs": 100,
    "batch_size": 64,
    "lr": 0.1,
    "schedule": "cosine",
    "precision": "32-true",
}
COST = "under a minute on two cores"

DIGITS = [
    Recipe("digits-lt", "ce", SETTINGS, COST),
    Recipe("digits-lt", "logit_adjust", SETTINGS, COST),
    Recipe(
        "digits-lt",
        "gml",
        {
            **SETTINGS,
            "method": {"queue_size": 256, "queue_base": 4},
            "teacher": "train",
            "teacher_stage": {"backbone": "smallnet_wide"},
        },
        "about a minute on two cores, teacher included",
    ),
]
