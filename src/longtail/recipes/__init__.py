"""Recipes: the exact settings of a method on a data set."""

from typing import Any

from longtail.recipes.camvid import CAMVID
from longtail.recipes.cifar_lt import CIFAR_LT
from longtail.recipes.digits import DIGITS
from longtail.recipes.imagenet_lt import IMAGENET_LT
from longtail.recipes.inaturalist18 import INATURALIST18
from longtail.recipes.places_lt import PLACES_LT
from longtail.recipes.recipe import Recipe, overlay

__all__ = [
    "CAMVID",
    "CIFAR_LT",
    "DIGITS",
    "IMAGENET_LT",
    "INATURALIST18",
    "PLACES_LT",
    "RECIPES",
    "TWO_STAGES",
    "Recipe",
    "find_recipe",
    "overlay",
]

RECIPES = (*DIGITS, *CIFAR_LT, *IMAGENET_LT, *PLACES_LT, *INATURALIST18, *CAMVID)


# Settings of two-stage methods on data sets without a recipe: see `longtail.methods.retrained`.
TWO_STAGES: dict[str, dict[str, Any]] = {
    **{
        method: {"epochs": 20, "sampling": "class_balanced", "first_stage": {"epochs": 200}}
        for method in ("crt", "lws", "supcon")
    },
    "tau_norm": {"epochs": 0, "first_stage": {"epochs": 200}},
}


def find_recipe(source: str, method: str, imbalance: float | None = None) -> Recipe:
    """The recipe of a method on a data set.

    Args:
        source: name of the data set.
        method: name of the method.
        imbalance: imbalance of the training set; None: the default of the data set.

    Returns: the recipe for exactly this imbalance, else the one for any imbalance. A method without
        a recipe gets the settings of `ce` on the data set, so that both can be compared, and those
        that it needs on every data set.
    """
    known = {(recipe.source, recipe.method, recipe.imbalance): recipe for recipe in RECIPES}
    for wanted in (imbalance, None):
        if (source, method, wanted) in known:
            return known[source, method, wanted]
    plain = known.get((source, "ce", None), Recipe(source, "ce")).settings
    settings = overlay(
        {name: value for name, value in plain.items() if name != "method"},
        TWO_STAGES.get(method, {}),
    )
    if "epochs" in plain and "first_stage" in settings:
        settings["first_stage"] = {"epochs": plain["epochs"]}
    return Recipe(source, method, settings)
