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

    Returns: the recipe for exactly this imbalance, else the one for any imbalance, else one with
        the settings that the method needs on every data set.
    """
    for wanted in (imbalance, None):
        for recipe in RECIPES:
            if (recipe.source, recipe.method, recipe.imbalance) == (source, method, wanted):
                return recipe
    return Recipe(source, method, TWO_STAGES.get(method, {}))
