"""What would decide the comparisons that are undecided, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis import planning
from peft_methods.analysis.planning import Plan
from peft_methods.analysis.ranking import Ranking

Found = Mapping[str, Sequence[Plan]]  # plans by method


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
    start = (
        f"To decide what is undecided against {titles[best]}, with as many seeds of every method"
    )
    parts = (_enough(found), *_on_more_rows(found), _never(found))
    return f"{start}: {'; '.join(filter(None, parts))}."


def _enough(found: Found) -> str:
    """Name the methods that more seeds decide."""
    return ", ".join(
        f"{plans[0].seeds} seeds for {title} (chance {_percent(plans[0])})"
        for title, plans in found.items()
        if plans[0].is_sure
    )


def _on_more_rows(found: Found) -> list[str]:
    """Name those that need more test rows too."""
    return [
        f"{plans[1].seeds} seeds on {plans[1].rows:,} test rows for {title} ({_percent(plans[1])}; "
        f"{plans[0].seeds} on these {plans[0].rows:,}: {_percent(plans[0])})"
        for title, plans in found.items()
        if len(plans) > 1
    ]


def _never(found: Found) -> str:
    """Name those that neither decides."""
    hopeless = {
        t: plans[0] for t, plans in found.items() if len(plans) == 1 and not plans[0].is_sure
    }
    if not hopeless:
        return ""
    named = ", ".join(f"{title} ({_percent(plan)})" for title, plan in hopeless.items())
    plan = next(iter(hopeless.values()))
    return (
        f"{plan.seeds} seeds on these {plan.rows:,} test rows are not enough for {named}, nor are "
        f"{planning.TIMES_ROWS[-1]} times the rows"
    )


def _percent(plan: Plan) -> str:
    return f"{min(max(100 * plan.chance, 1), 99):.0f} %"
