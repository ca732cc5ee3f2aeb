"""What would decide the comparisons that are undecided, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis import planning
from peft_methods.analysis.planning import Plan
from peft_methods.analysis.ranking import Ranking


def plans_text(ranking: Ranking, titles: Mapping[str, str]) -> str:
    """Say how many seeds and test rows would probably decide each method against the best one.

    '' if all are decided, or if the session adds seeds by itself. `titles` are display names.
    """
    best = ranking.order[0] if ranking.order else None
    undecided = [
        pair.second for pair in ranking.pairs if pair.first == best and pair.verdict == "undecided"
    ]
    if best is None or not undecided or ranking.seeds_added is not None:
        return ""
    alike = sum(not pair.is_separable for pair in ranking.pairs)
    found = {
        titles[method]: planning.plan(ranking.samples, best, method, ranking.margin, alike)
        for method in undecided
    }
    easy = [
        f"{plans[0].seeds} seeds for {title} (chance {_percent(plans[0])})"
        for title, plans in found.items()
        if plans[0].is_sure
    ]
    hard = [_hard(title, plans) for title, plans in found.items() if not plans[0].is_sure]
    start = (
        f"To decide what is undecided against {titles[best]}, with as many seeds of every method"
    )
    return f"{start}: {'; '.join((', '.join(easy), *hard) if easy else hard)}."


def _hard(title: str, plans: Sequence[Plan]) -> str:
    """Say that seeds alone are not enough, and what more test rows would do."""
    alone, *more = plans
    enough = (
        f"{more[0].seeds} seeds on {more[0].rows:,} rows are ({_percent(more[0])})"
        if more
        else f"nor are more seeds on {planning.TIMES_ROWS[-1]} times the rows"
    )
    return (
        f"{alone.seeds} seeds are not enough for {title} on these {alone.rows:,} test rows "
        f"({_percent(alone)}), {'but ' if more else ''}{enough}"
    )


def _percent(plan: Plan) -> str:
    return f"{min(max(100 * plan.chance, 1), 99):.0f} %"
