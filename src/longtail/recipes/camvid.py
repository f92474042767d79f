"""CamVid at 240x180 (`--data.root` is its folder): a small network, minutes on two cores.

The learning rate, the weight of the contrast and the power of the prior were chosen on the
validation split, GML's classifier on a drive held out of the training split, both with a seed that
is not reported; see EXPERIMENTS.md.
"""

from typing import Any

from longtail.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "backbone": "small_unet",
    "views": "weak",
    "crop": [128, 160],
    "epochs": 30,
    "batch_size": 4,
    "lr": 0.1,
    "schedule": "cosine",
    "weight_decay": 5e-4,
}
COST = "four minutes or more on two cores"
EXPECTED = "results/camvid.json; nothing published for these settings"

CAMVID = [
    Recipe("camvid", "ce", SETTINGS, COST, EXPECTED),
    Recipe("camvid", "logit_adjust", {**SETTINGS, "prior_power": 0.5}, COST, EXPECTED),
    Recipe(
        "camvid",
        "gml",
        {**SETTINGS, "method": {"beta": 0.3}, "prior_power": 0.5},
        COST,
        EXPECTED,
    ),
]
