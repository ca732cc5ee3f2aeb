"""The task that a user's data are for, inferred from their columns."""

from __future__ import annotations

from dataclasses import replace

from peft_methods.data.sources import read_source
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import DEFAULT_TASK, Expect, Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import DataError, OptionError
from peft_methods.utils.files import path_of


def infer_task(recipe: Recipe) -> Recipe:
    """Return a recipe that names no task with the one that its data are for; a note says so.

    Data that no other task recognises are for text classification. So are bundled data, and data
    that cannot be read here: whoever loads them reports why. Raises `OptionError` for data that
    several tasks recognise.
    """
    reasons = _reasons(recipe)
    if len(reasons) > 1:
        fitting = " or ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise OptionError(
            f"{recipe.data.source}: the data are for {fitting}. Name the task: "
            f"task = {min(reasons)!r}.",
            setting="task",
        )
    return next((_as_task(recipe, name, why) for name, why in reasons.items()), recipe)


def _reasons(recipe: Recipe) -> dict[str, str]:
    """Return why the data can only be for a task, by task.

    Empty for bundled data, and for data that cannot be read here.
    """
    source = recipe.data.source
    if source.startswith(PREFIX) or path_of(source) is None:
        return {}
    try:
        raw = read_source(recipe.data)
    except DataError:
        return {}
    return {
        name: reason
        for name, task in TASKS.items()
        if (reason := task.recognises(raw, recipe.data))
    }


def with_fitting_task(recipe: Recipe, error: DataError) -> DataError:
    """Return the error of data that the recipe's task cannot read; it names the task they fit.

    It is the same error where the data fit the recipe's task, or no task for certain.
    """
    reasons = _reasons(recipe)
    if not reasons or recipe.task in reasons:
        return error
    fitting = " or ".join(f"{name}, since {reason}" for name, reason in reasons.items())
    wanted = " or ".join(f'"{name}"' for name in reasons)
    return DataError(
        f"{error} The task of the recipe is {recipe.task}, but these data are for {fitting}: set "
        f"task = {wanted}, or give data for {recipe.task}.",
        setting=error.setting,
    )


def _as_task(recipe: Recipe, name: str, reason: str) -> Recipe:
    """Set the task. What the recipe says of another task's metrics does not hold for it."""
    if name == DEFAULT_TASK:
        return recipe
    note = f"the task is {name}, since {reason} (data.task names another)"
    known = {metric.name for metric in TASKS[name].metrics}
    keeps = recipe.data.select_by in known
    return replace(
        recipe,
        task=name,
        data=recipe.data if keeps else replace(recipe.data, select_by=None),
        expect=recipe.expect if keeps else Expect(above_majority=recipe.expect.above_majority),
        notes=(*recipe.notes, note),
    )
