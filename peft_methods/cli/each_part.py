"""The recipes of a session that measures what each part of the seeds brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_methods.utils.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_methods.recipes.schema import Recipe


def recipes_of_each_part(
    recipes: Sequence[Recipe], *, tuned: bool, adds_seeds: bool
) -> list[Recipe]:
    """Return each recipe, and one for each part alone.

    Raises `OptionError` if runs are tuned or seeds added: the parts would not be comparable.
    """
    from peft_methods.recipes.one_part_alone import with_each_part_alone

    if tuned:
        raise OptionError(
            "tune would give every part of the noise other hyperparameters. Tune first, write the "
            "rates into the recipe, and measure the parts without tuning.",
            setting="tune",
        )
    if adds_seeds:
        raise OptionError(
            "decide would give every part of the noise another number of seeds. Set the number of "
            "seeds, and measure the parts without decide.",
            setting="decide",
        )
    return [one for recipe in recipes for one in with_each_part_alone(recipe)]


def refuse_baseline(each_part: bool, option: Any) -> None:
    """Raise `OptionError` if a baseline is to be read or written in such a session."""
    given = option.peft_baseline is not None or option.peft_save_baseline is not None
    if each_part and given:
        raise OptionError(
            "--peft-vary each measures the noise; a baseline holds one session of a recipe. "
            "Leave out one of them."
        )
