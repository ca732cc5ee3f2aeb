"""Several models in one session: one recipe per model, which differ in model and name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from peft_methods.recipes.schema import Recipe
from peft_methods.utils.errors import OptionError
from peft_methods.utils.files import path_of


def parse_models(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Parse 'A,B' or a list: folders, hub ids or bundled models. Raises `OptionError`.

    A folder whose name has a comma is one model.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        folder = path_of(value)
        one = folder is not None and folder.exists()
        value = [value] if one else [part.strip() for part in value.split(",")]
    if not all(value):
        text = ",".join(value)
        raise OptionError(f"model {text!r} has an empty name. Write a,b.", setting="model")
    return tuple(dict.fromkeys(value))


def recipes_of_models(
    load: Callable[[str, str | None], Recipe], name: str, models: Sequence[str]
) -> list[Recipe]:
    """Return the recipe `name` with each model, loaded by `load(name, model)`.

    One model keeps the recipe's name. With several, RECIPE.MODEL names each, and `models_of` the
    recipe: all are trained on the same rows, and compared across models too.
    """
    if len(models) <= 1:
        return [load(name, models[0] if models else None)]
    found: dict[str, Recipe] = {}
    for model in models:
        recipe = load(name, model)
        own = f"{recipe.name}.{short_name(model)}"
        while own in found:
            own = f"{own}-{len(found) + 1}"
        found[own] = replace(recipe, name=own, models_of=recipe.name)
    return list(found.values())


def short_name(model: str) -> str:
    """Return the last part of a model's source in the form that a recipe's name has."""
    last = re.split(r"[/:]", model.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9_.-]", "_", last)
