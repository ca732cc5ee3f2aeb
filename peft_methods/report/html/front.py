"""The Pareto front of all axes, in words."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.ranking import COSTS, Ranking
from peft_methods.profiling.metrics import METRICS


def front_note(rows: Sequence[Row], ranking: Ranking) -> str:
    """List the methods on the Pareto front; empty with fewer than two candidates."""
    titles = [row.title for row in rows if ranking.pareto_optimal.get(row.method)]
    if len(ranking.pareto_optimal) < 2 or not titles:
        return ""
    metrics = ", ".join(METRICS[name].in_text for name in (ranking.metric, *COSTS))
    return f"On the Pareto front of {metrics}: {', '.join(titles)}."
