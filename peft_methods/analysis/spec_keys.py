"""Texts that are equal for equal settings, for the comparison of thousands of records.

They hold what the JSON of a record's spec holds, and are made several times as fast.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.spec_settings import NOT_RECORDED
from peft_methods.utils.validation import adapter

NOT_OF_THE_RUNS: Any = dict.fromkeys(NOT_RECORDED, True) | {"budget": {"seeds"}}


def recipe_key(recipe: Recipe) -> bytes:
    """Return a recipe's settings but for the number of seeds and what concerns other runs."""
    return adapter(Recipe).dump_json(recipe, exclude=NOT_OF_THE_RUNS, warnings=False)


def method_key(method: Method) -> bytes:
    """Return a method's hyperparameters."""
    kind: Any = type(method)
    return adapter(kind).dump_json(method, warnings=False)


def run_key(spec: RunSpec) -> Hashable:
    """Return all that was requested, but for the engine, which may have fallen back."""
    return (
        recipe_key(spec.recipe),
        (spec.method.name, method_key(spec.method)),
        (spec.seed, spec.device, spec.role, spec.trial, spec.deterministic),
        tuple(map(run_key, spec.prerequisites)),
    )
