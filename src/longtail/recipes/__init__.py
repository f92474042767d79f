"""Recipes: the exact settings of a method on a data set."""

from longtail.recipes.camvid import CAMVID
from longtail.recipes.cifar_lt import CIFAR_LT
from longtail.recipes.digits import DIGITS
from longtail.recipes.recipe import Recipe

__all__ = ["CAMVID", "CIFAR_LT", "DIGITS", "RECIPES", "Recipe", "find_recipe"]

RECIPES = (*DIGITS, *CIFAR_LT, *CAMVID)


def find_recipe(source: str, method: str) -> Recipe:
    """The recipe of a data set and a method; one without settings where there is none."""
    for recipe in RECIPES:
        if (recipe.source, recipe.method) == (source, method):
            return recipe
    return Recipe(source, method)
