"""Recipes in which a single part varies between seeds, to measure how much noise it brings."""

from __future__ import annotations

from dataclasses import replace

from peft_methods.recipes.schema import Recipe
from peft_methods.utils.errors import OptionError


def with_each_part_alone(recipe: Recipe) -> list[Recipe]:
    """Return the recipe, and one recipe for each part that its seeds vary, named RECIPE.PART.

    Raises `OptionError` if its seeds vary fewer than two parts, or if it has one seed.
    """
    vary, seeds = recipe.budget.vary, recipe.budget.seed_list()
    if len(vary) < 2:
        raise OptionError(
            f"recipe {recipe.name!r}: its seeds vary {' and '.join(vary) or 'nothing'}, so there "
            f"are no parts to tell apart. Set budget.vary to two parts or more.",
            setting="budget.vary",
        )
    if len(seeds) < 2:
        raise OptionError(
            f"recipe {recipe.name!r}: one seed shows no spread. Set two seeds or more to measure "
            f"what each part brings.",
            setting="budget.seeds",
        )
    return [
        recipe,
        *(
            replace(
                recipe,
                name=f"{recipe.name}.{part}",
                budget=replace(recipe.budget, vary=(part,)),
            )
            for part in vary
        ),
    ]
