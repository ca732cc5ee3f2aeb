"""The runs of a session: every chosen method on every recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from peft_methods.methods.base import Method
from peft_methods.methods.selection import chosen_methods, with_methods
from peft_methods.profiling.environment import usable_cores
from peft_methods.profiling.gpus import gpus_here
from peft_methods.recipes.schema import Recipe, check_trust
from peft_methods.runs.cost_model import total_seconds
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import OptionError
from peft_methods.utils.words import counted

NEED_A_GPU = ("tf32", "fp16")  # precisions


@dataclass(frozen=True, repr=False)
class RunGroup:
    """The runs of one method on one recipe, a run per seed. One benchmark test waits for them."""

    recipe: Recipe
    method: Method
    runs: tuple[RunSpec, ...]

    def __repr__(self) -> str:
        """The name alone: pytest-benchmark writes it to its JSON, which must hold no folders."""
        return "-".join(self.name)

    @property
    def name(self) -> tuple[str, str]:
        """The names of recipe and method."""
        return self.recipe.name, self.method.name

    def with_seeds(self, count: int) -> RunGroup:
        """Return the group with further seeds, `count` in all.

        They follow the largest one: 0, 1, 2, then 3.
        """
        following = max(run.seed for run in self.runs) + 1
        new = range(following, following + count - len(self.runs))
        return replace(self, runs=(*self.runs, *(replace(self.runs[0], seed=seed) for seed in new)))


def with_more_seeds(
    groups: Iterable[RunGroup], wanted: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], RunGroup]:
    """Return the groups that should have more seeds than they have, with them, by name."""
    return {
        group.name: group.with_seeds(wanted[group.name])
        for group in groups
        if wanted.get(group.name, 0) > len(group.runs)
    }


def longest_first(
    groups: Iterable[RunGroup], preparations: Mapping[str, PreparedRecipe], workers: int
) -> list[RunGroup]:
    """Return the groups in the order in which they start, so that none is left alone at the end."""
    return sorted(groups, key=lambda group: -total_seconds(group.runs, preparations, workers))


def run_groups(
    recipes: Iterable[Recipe],
    methods: Sequence[str] | None,
    device: str,
    engine: str = "auto",
    *,
    deterministic: bool = False,
    trust_remote_code: bool = False,
    seeds_max: int | None = None,
    largest_node: int | None = None,
) -> list[RunGroup]:
    """Return the chosen methods of every recipe with their runs.

    With `seeds_max`, seeds will be added to those of the recipe, up to that number. `largest_node`
    is the largest number of GPUs, or of CPU cores without GPUs, of a node of the cluster where runs
    happen; None: they happen on this machine.

    Raises `OptionError` for a method that is missing in a recipe, for two recipes with the same
    name, for a precision or an engine that needs a GPU where there is none, for a model's own code
    unless both recipe and user allow it, and for seeds that allow no decision.
    """
    recipes = [with_methods(recipe, methods) for recipe in recipes]
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(
            f"two recipes are named {twice!r}, so their rows would look the same. Change `name` in "
            "one of them."
        )
    check_trust(recipes, trust_remote_code)
    for recipe in recipes:
        _check_precision(recipe, device)
        _check_gpus(recipe, device, largest_node)
    engines = {one.name: choose_engine(engine, device, one.budget.gpus) for one in recipes}
    return [
        RunGroup(
            recipe,
            method,
            tuple(
                replace(run, seed_plan=_seed_plan(recipe, seeds_max))
                for run in run_specs(
                    recipe, method, device, engines[recipe.name], deterministic=deterministic
                )
            ),
        )
        for recipe in recipes
        for method in chosen_methods(recipe, methods)
    ]


def _seed_plan(recipe: Recipe, most: int | None) -> SeedPlan | None:
    return None if most is None else SeedPlan(len(recipe.budget.seed_list()), most)


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


def _check_gpus(recipe: Recipe, device: str, largest_node: int | None) -> None:
    """Raise `OptionError` if a run needs more GPUs than a machine has, or processes than cores."""
    gpus = recipe.budget.gpus
    if gpus == 1 or (device == "cpu" and recipe.gpu):
        return
    what = "CPU core" if device == "cpu" else "GPU"
    if largest_node is None:
        there = usable_cores() if device == "cpu" else len(gpus_here())
        where = f"this machine has {counted(there, what)} to use"
    else:
        there = largest_node
        where = f"the largest node has {counted(there, what)}"
    if gpus > there > 0:
        raise OptionError(
            f"recipe {recipe.name!r}: budget.gpus = {gpus} is more than there are ({where}). Set "
            f"budget.gpus = {there} or less.",
            setting="budget.gpus",
        )


def no_gpu_reason(recipe: Recipe) -> str:
    """Return why the runs of a recipe for GPUs are skipped on a machine without one."""
    return (
        f"recipe {recipe.name!r} needs an NVIDIA GPU and none is visible; with gpu = false it uses "
        "the CPU"
    )
