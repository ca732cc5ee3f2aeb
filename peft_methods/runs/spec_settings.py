"""The settings of a run's recipe and method as JSON.

Thousands of runs share a recipe and a method, whose settings are converted once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.recipes.language_data import LanguageData
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.recipes.variation import USUAL
from peft_methods.utils import sanitize
from peft_methods.utils.identity import Same

LATER_SETTINGS = ("rank_by", *(one.name for one in fields(LanguageData)))  # of the data
FOR_SEVERAL_GPUS = ("gpus", "strategy")  # of the budget
NOT_RECORDED = ("methods", "title", "notes", "tuning")  # parts of a recipe
MOST_KEPT = 256  # recipes, and methods


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON values, without what concerns other runs or only people.

    The number of seeds is left out: further seeds do not change a run. What seeds vary is left out
    if it is the usual, and so are later settings at their defaults: records from before they could
    be set are of the same runs.
    """
    return _parsed(_recipe_text(Same(recipe)))


def method_settings(method: Method) -> dict[str, Any]:
    """Return the method's hyperparameters as JSON values."""
    return _parsed(_method_text(Same(method)))


@lru_cache(MOST_KEPT)
def _recipe_text(same: Same[Recipe]) -> str:
    recipe = same.value
    values = {n: value for n, value in asdict(recipe).items() if n not in NOT_RECORDED}
    del values["budget"]["seeds"]
    if recipe.budget.vary == USUAL:
        del values["budget"]["vary"]
    if recipe.budget.gpus == 1:
        for name in FOR_SEVERAL_GPUS:
            del values["budget"][name]
    for name in LATER_SETTINGS:
        if values["data"][name] == getattr(DataSpec, name):
            del values["data"][name]
    return json.dumps(values)


@lru_cache(MOST_KEPT)
def _method_text(same: Same[Method]) -> str:
    return json.dumps(asdict(same.value))


@lru_cache(MOST_KEPT)
def quoted(name: str) -> str:
    """Return a name as JSON."""
    return json.dumps(name)


def decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's JSON without what leaves the results as they are.

    A trial's name and the expectations are left out. A prerequisite run gives what a main run with
    the same settings gives, but a trial is not tested.
    """
    prerequisites = [decisive(one) for one in values["prerequisites"]]
    found = {**values, "recipe": _decisive(values["recipe"]), "prerequisites": prerequisites}
    found.pop("trial", None)
    if found["role"] != "trial":
        del found["role"]
    return found


def _decisive(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name != "expect"}


def decisive_recipe(recipe: Recipe) -> str:
    """Return the recipe's part of `decisive` as JSON, without private data and in sorted order."""
    return _decisive_recipe(Same(recipe))


def decisive_method(method: Method) -> str:
    """Return the method's part of `decisive` as JSON, without private data and in sorted order."""
    return _decisive_method(Same(method))


@lru_cache(MOST_KEPT)
def _decisive_recipe(same: Same[Recipe]) -> str:
    return _sorted(_decisive(recipe_settings(same.value)))


@lru_cache(MOST_KEPT)
def _decisive_method(same: Same[Method]) -> str:
    return _sorted({"name": same.value.name, **method_settings(same.value)})


def _sorted(values: dict[str, Any]) -> str:
    return json.dumps(sanitize.private(values), sort_keys=True)


def _parsed(text: str) -> dict[str, Any]:
    """Return the values as JSON restores them: new objects, and lists for tuples."""
    parsed: dict[str, Any] = json.loads(text)
    return parsed
