"""Learning curves: the sizes that a user asks for, and one recipe per size.

Every size is a recipe of its own with ordinary runs and records. It differs from the others only in
its name, in `data.train_subset` and in what is expected of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peft_methods.recipes.schema import Expect, Recipe
from peft_methods.utils.errors import OptionError

LEAST_ROWS = 10  # of a training set; fewer train nothing
MOST_DIGITS = 10
MOST_SIZES = 20


def parse_sizes(text: str) -> tuple[int, ...]:
    """Parse '100,300,1000': numbers of training rows in ascending order. Raises `OptionError`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) <= MOST_DIGITS for part in parts):
        raise _error(text, "should be numbers of training rows, such as 100,300,1000")
    sizes = [int(part) for part in parts]
    if min(sizes) < LEAST_ROWS:
        enough = sorted({size for size in sizes if size >= LEAST_ROWS})
        problem = f"has a size of {min(sizes)} rows; the smallest possible one is {LEAST_ROWS}"
        raise _error(text, problem, enough)
    if sizes != sorted(set(sizes)):
        twice = next((size for size in sizes if sizes.count(size) > 1), None)
        problem = f"has {twice} twice" if twice else "should be in ascending order"
        raise _error(text, problem, sorted(set(sizes)))
    if len(sizes) > MOST_SIZES:
        raise _error(text, f"has {len(sizes)} sizes; up to {MOST_SIZES} are possible")
    return tuple(sizes)


def _error(text: str, problem: str, better: Sequence[int] = ()) -> OptionError:
    advice = f": {','.join(map(str, better))}" if better else ""
    return OptionError(f"curve {text!r} {problem}{advice}.", setting="curve")


def curve_recipes(recipe: Recipe, sizes: Sequence[int]) -> list[Recipe]:
    """Return one recipe per size, smallest first; without sizes the recipe itself.

    A size's rows are drawn from all training rows of the data, whatever `data.train` says, so that
    validation and test rows are the same for every size. What the recipe expects of a run holds for
    the sizes from `data.train` on. Raises `OptionError` for random weights, which have no quality.
    """
    if not sizes:
        return [recipe]
    if not recipe.has_quality:
        raise OptionError(
            "a learning curve shows quality, which random weights do not have. Leave out the curve "
            "or train pretrained weights.",
            setting="curve",
        )
    return [_of_size(recipe, rows) for rows in sizes]


def _of_size(recipe: Recipe, rows: int) -> Recipe:
    own = recipe.data.train
    is_expected = isinstance(own, int) and rows >= own
    notes = recipe.notes
    if isinstance(own, int):
        notes += (f"learning curve of {recipe.name}: data.train = {own} is not used",)
    return replace(
        recipe,
        name=f"{recipe.name}-{rows}",
        curve_of=recipe.name,
        data=replace(recipe.data, train="all", train_subset=rows),
        expect=recipe.expect if is_expected else Expect(above_majority=False),
        notes=notes,
    )
