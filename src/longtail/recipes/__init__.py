"""Recipes: the exact settings of a method on a data set."""

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
    "Recipe",
    "find_recipe",
    "overlay",
]

RECIPES = (*DIGITS, *CIFAR_LT, *IMAGENET_LT, *PLACES_LT, *INATURALIST18, *CAMVID)


# What a method in two stages needs on any data set: see `longtail.methods.retrained`.
TWO_STAGES = {
    **{
        method: {"epochs": 20, "sampling": "class_balanced", "first_stage": {"epochs": 200}}
        for method in ("crt", "lws", "supcon")
    },
    "tau_norm": {"epochs": 0, "first_stage": {"epochs": 200}},
}


def find_recipe(source: str, method: str) -> Recipe:
    """The recipe of a data set and a method; without one, what the method needs on any data."""
    for recipe in RECIPES:
        if (recipe.source, recipe.method) == (source, method):
            return recipe
    return Recipe(source, method, TWO_STAGES.get(method, {}))
