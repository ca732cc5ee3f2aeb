"""What a comparison is to train: every chosen method on every recipe, and how many cells at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peft_methods.methods.base import Method
from peft_methods.methods.selection import chosen_methods, with_methods
from peft_methods.recipes.schema import Recipe, check_trust
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import OptionError

NEED_A_GPU = ("tf32", "fp16")  # precisions


@dataclass(frozen=True, repr=False)
class RunGroup:
    """One method on one recipe, all its seeds: what one benchmark test waits for."""

    recipe: Recipe
    method: Method
    runs: tuple[RunSpec, ...]

    def __repr__(self) -> str:
        return "-".join(
            self.name
        )  # pytest-benchmark writes it to its JSON: no folders of the user's there

    @property
    def name(self) -> tuple[str, str]:
        """Recipe's and method's names."""
        return self.recipe.name, self.method.name


def run_groups(
    recipes: Iterable[Recipe],
    methods: Sequence[str] | None,
    device: str,
    engine: str = "auto",
    *,
    deterministic: bool = False,
    trust_remote_code: bool = False,
) -> list[RunGroup]:
    """Every chosen method of every recipe.

    Raises `OptionError` for a method that a recipe does not have, two recipes of one name, a precision or an engine without its GPU,
    a model's own code that not both the recipe and the user want run.
    """
    recipes = [with_methods(recipe, methods) for recipe in recipes]
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(
            f"two recipes are named {twice!r}; their rows could not be told apart. Change `name` in one of them."
        )
    check_trust(recipes, trust_remote_code)
    for recipe in recipes:
        _check_precision(recipe, device)
    engine = choose_engine(engine, device)
    return [
        RunGroup(
            recipe,
            method,
            tuple(run_specs(recipe, method, device, engine, deterministic=deterministic)),
        )
        for recipe in recipes
        for method in chosen_methods(recipe, methods)
    ]


def _check_precision(recipe: Recipe, device: str) -> None:
    """Raise `OptionError` if the precision needs a GPU and there is none.

    Recipes for GPUs are skipped there in any case.
    """
    precision = recipe.budget.precision
    if device == "cpu" and precision in NEED_A_GPU and not recipe.gpu:
        raise OptionError(
            f"recipe {recipe.name!r}: budget.precision = {precision!r} needs an NVIDIA GPU and "
            "none is visible. Allowed here: fp32, bf16.",
            setting="budget.precision",
        )
