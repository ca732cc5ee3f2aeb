"""How many seeds each method should have before the comparison is looked at again."""

from __future__ import annotations

from peft_methods.analysis.comparison import comparison_of
from peft_methods.runs.results import Results


def seeds_wanted(results: Results, margin: float) -> dict[tuple[str, str], int]:
    """Return the number of seeds by recipe and method, for those that need another one.

    Methods that are decided (see `sequential`) are left out, as are those without results.
    """
    rankings = comparison_of(results, margin=margin).rankings
    return {
        (recipe, method): seeds
        for recipe, ranking in rankings.items()
        if ranking.seeds_added is not None
        for method, seeds in ranking.seeds_added.wanted.items()
    }
