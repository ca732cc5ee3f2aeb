"""The values that tuning tries for each hyperparameter, and whether a recipe can be tuned."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import with_methods
from peft_methods.recipes.schema import Recipe
from peft_methods.utils.errors import OptionError, unknown

RATE = "learning_rate"
Grid = dict[str, tuple[Any, ...]]


def check_tuning(recipes: Sequence[Recipe]) -> None:
    """Raise `OptionError` if recipes cannot be tuned.

    Reasons: Optuna is missing, weights are random (no quality), or [tuning.knobs] is invalid.
    """
    if importlib.util.find_spec("optuna") is None:
        raise OptionError("tuning needs Optuna: pip install 'peft-methods[tune]'.", setting="tune")
    for recipe in map(with_methods, recipes):
        if not recipe.has_quality:
            raise OptionError(
                f"recipe {recipe.name!r} cannot be tuned: its weights are random, so it has no "
                "quality to tune. Choose another recipe, or do not tune.",
                setting="tune",
            )
        for name in recipe.tuning.knobs:
            if name not in recipe.methods:
                raise OptionError(
                    f"{recipe.name}: {unknown('method', name, recipe.methods)} (in [tuning.knobs])",
                    setting="tuning.knobs",
                )
            grid_of(recipe, METHODS.create(name, recipe.methods[name], recipe.name, recipe))


def grid_of(recipe: Recipe, method: Method) -> Grid:
    """Return the values to try for each hyperparameter, no value twice. Raises `OptionError`.

    They are a grid of learning rates and the values in the recipe's [tuning.knobs].
    """
    grid: Grid = {RATE: _rates(recipe, method)}
    own = asdict(method)
    for name, values in recipe.tuning.knobs.get(method.name, {}).items():
        if name not in own or name == RATE:
            allowed = set(own) - {RATE}
            raise OptionError(
                f"{recipe.name}, [tuning.knobs.{method.name}]: "
                f"{unknown('hyperparameter', name, allowed)}",
                setting=f"tuning.knobs.{method.name}",
            )
        read = [_as_read(recipe, method, name, value) for value in values]
        distinct = [value for index, value in enumerate(read) if value not in read[:index]]
        grid[name] = tuple(distinct if own[name] in distinct else [own[name], *distinct])
    return grid


def _rates(recipe: Recipe, method: Method) -> tuple[float, ...]:
    """Return learning rates, evenly spaced on a logarithmic scale around the method's own."""
    points, reach = recipe.tuning.points, recipe.tuning.reach
    own = method.learning_rate
    rates = [own * reach ** (2 * step / (points - 1) - 1) for step in range(points)]
    rates[points // 2] = own
    return tuple(rates)


def _as_read(recipe: Recipe, method: Method, name: str, value: Any) -> Any:
    """Return a value as the method reads it, so that 8 and "8" or a list and a tuple are equal."""
    made = METHODS.create(
        method.name,
        {**recipe.methods.get(method.name, {}), name: value},
        f"{recipe.name}, [tuning.knobs.{method.name}]",
        recipe,
    )
    return asdict(made)[name]
