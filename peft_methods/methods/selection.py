"""Which methods a recipe trains: its sections, `all`, and those that are asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peft_methods.methods.base import Method
from peft_methods.methods.registry import ALL, METHODS
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS, with_task


def with_methods(recipe: Recipe, names: Sequence[str] | None = None) -> Recipe:
    """Return the recipe with a section for every method: `all` expanded, `names` added.

    `all` leaves out methods that need settings without a default; a note says so. Raises
    `OptionError` for an unknown name.
    """
    recipe, names = with_task(recipe), tuple(names or ())
    sections = {name: section for name, section in recipe.methods.items() if name != ALL}
    named = [name for name in names if name != ALL]
    for name in (*sections, *named):
        METHODS[name]
    notes = list(recipe.notes)
    for name in METHODS if ALL in (*recipe.methods, *names) else ():
        if name in sections or name in named:
            continue
        if missing := METHODS.missing(name, {}, recipe):
            notes.append(
                f'{METHODS[name].title} is left out of "all": methods.{name}.{missing[0]} has no '
                f"default here; set it to include the method"
            )
        else:
            sections[name] = {}
    sections |= {name: {} for name in named if name not in sections}
    notes = list(dict.fromkeys([*notes, *METHODS.problems, *TASKS.problems]))
    return replace(recipe, methods=sections, notes=tuple(notes))


def chosen_methods(recipe: Recipe, names: Sequence[str] | None = None) -> list[Method]:
    """The recipe's methods, or those named, in the registry's order. Raises `OptionError`.

    All sections of the recipe are checked, so that a typo is found even where it is not used.
    """
    recipe = with_methods(recipe, names)
    created = {
        name: METHODS.create(name, section, recipe.name, recipe)
        for name, section in recipe.methods.items()
    }
    wanted = created if not names or ALL in names else names
    return [created[name] for name in METHODS if name in created and name in wanted]
