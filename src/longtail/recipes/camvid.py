"""CamVid at 240x180 (`--data.root` is its folder): the small network, a budget for two cores."""

from typing import Any

from longtail.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "backbone": "small_unet",
    "views": "weak",
    "crop": [128, 160],
    "epochs": 30,
    "batch_size": 8,
    "lr": 0.05,
    "schedule": "cosine",
    "weight_decay": 5e-4,
}

CAMVID = [
    Recipe("camvid", "ce", SETTINGS),
    Recipe("camvid", "logit_adjust", SETTINGS),
    Recipe("camvid", "gml", SETTINGS),
]
