"""The warning that a recipe's learning rates were tuned for another model than it trains."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.methods.base import DefaultRate
from peft_methods.methods.registry import ALL, METHODS
from peft_methods.models.config import kind_of
from peft_methods.models.stored_weights import have_same_weights
from peft_methods.recipes.schema import Recipe

RATE = "learning_rate"
TUNING = "trials"  # the setting that tunes the rates


def rate_warning(tuned: Recipe, recipe: Recipe, names: Sequence[str], tuning: str) -> str:
    """Return the warning for `recipe`, whose rates are those of `tuned`; '' if there is none.

    There is none without rates in the recipe, for random weights, and for weights that are the same
    in another place. `names` are the chosen methods (none means all), and `tuning` is how a user
    sets the number of tuning trials.
    """
    rates = {
        name: section[RATE]
        for name, section in recipe.methods.items()
        if RATE in section and (not names or ALL in names or name in names)
    }
    is_same = tuned.model.source == recipe.model.source
    if (
        not (rates and recipe.has_quality)
        or is_same
        or have_same_weights(tuned.model, recipe.model)
    ):
        return ""
    return (
        f"warning: the learning rates were tuned for {tuned.model.source!r}, not for "
        f"{recipe.model.source!r}; a method may look worse than it is. Tune them with {tuning}, or "
        f"set methods.NAME.{RATE}.{_defaults(rates, recipe)}"
    )


def _defaults(rates: dict[str, float], recipe: Recipe) -> str:
    """Describe the default rates that differ from the recipe's, by the source of their values."""
    kind = kind_of(recipe.model)
    by_source: dict[str, list[str]] = {}
    for name in METHODS:
        default: DefaultRate | None = METHODS[name].info.rate_for(kind) if name in rates else None
        if default is not None and default.value != rates[name]:
            text = f"{METHODS[name].title} {default.value:g}"
            by_source.setdefault(default.source, []).append(text)
    listed = [f"{', '.join(values)} ({source})" for source, values in by_source.items()]
    words = kind.replace("_", " ")
    return (
        f" Default rates for this kind of model ({words}): {'; '.join(listed)}." if listed else ""
    )
