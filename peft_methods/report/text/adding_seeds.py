"""What adding seeds has decided, in words."""

from __future__ import annotations

from collections.abc import Mapping

from peft_methods.analysis.margin import margin_text
from peft_methods.analysis.ranking import Ranking
from peft_methods.profiling.metrics import METRICS
from peft_methods.utils.words import counted


def seeds_added_text(ranking: Ranking, titles: Mapping[str, str]) -> str:
    """Say with how many seeds each method was decided, and which ones are not.

    '' if none was to be added. `titles` are the methods' display names.
    """
    added = ranking.seeds_added
    if added is None or not ranking.order:
        return ""
    best, margin = ranking.order[0], margin_text(ranking.margin, METRICS[ranking.metric])
    by_seeds: dict[int, list[str]] = {}
    for method in ranking.order:
        if method != best and method not in added.undecided:
            by_seeds.setdefault(added.seeds[method], []).append(titles[method])
    parts = [f"{', '.join(by_seeds[count])} after {count}" for count in sorted(by_seeds)]
    return (
        f"Seeds were added until each method was worse than the best one ({titles[best]}, "
        f"{counted(added.seeds[best], 'seed')}) or equal to it within {margin}. "
        f"Decided: {'; '.join(parts) if parts else 'none'}.{_rest(ranking, titles)} The error rate "
        "of 5 % holds for all looks at the results together."
    )


def _rest(ranking: Ranking, titles: Mapping[str, str]) -> str:
    """Say which methods are undecided, and why no more seeds were added."""
    added = ranking.seeds_added
    assert added is not None
    if not added.undecided:
        return ""
    names = ", ".join(titles[method] for method in added.undecided)
    if added.wanted:
        return (
            f" Undecided: {names}; the session ended before the next seeds. The same command "
            "continues from here."
        )
    return f" Undecided with the limit of {counted(added.plan.most, 'seed')}: {names}."
