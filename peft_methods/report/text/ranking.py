"""The ranking table: confidence intervals, groups, and each method's difference to the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.margin import points
from peft_methods.analysis.ranking import NotCompared, Ranking
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING
from peft_methods.report.text.adding_seeds import seeds_added_text
from peft_methods.report.text.layout import Layout
from peft_methods.report.text.plans import plans_text
from peft_methods.utils.words import counted

RANKING_NOTE = (
    "Intervals: 95 %, over seeds and test examples together. Group: methods that share a letter "
    "cannot be told apart (each pair is compared on the same examples; the intervals of "
    "differences hold for all pairs simultaneously; p values are corrected by Holm's method)."
)
NOT_COMPARED = {
    NotCompared.ONE_SEED: "one seed: no spread",
    NotCompared.OTHER_EXAMPLES: "other test examples",
    NotCompared.NO_PREDICTIONS: "no predictions",
}


def ranking_table(ranking: Ranking, rows: Sequence[Row], layout: Layout) -> str:
    """Format one row per method, best first. Empty if no predictions were kept.

    Columns of the first table are left out where the width is too small for them.
    """
    shown = sorted(
        (row for row in rows if row.method in ranking.intervals),
        key=lambda row: -METRICS[ranking.metric].sign() * row.mean(ranking.metric),
    )
    if not shown:
        return ""
    headings = [
        "Method",
        METRICS[ranking.metric].title,
        "95 %\ninterval",
        "Group",
        "To the best,\npoints",
        "p",
        "Verdict",
    ]
    lines = [
        [
            layout.escape(row.title),
            f"{100 * row.mean(ranking.metric):.1f}",
            *_ranking_cells(ranking, row.method),
        ]
        for row in shown
    ]
    for dispensable in ("p", "Group", METRICS[ranking.metric].title):
        if not layout.fits(headings, lines):
            at = headings.index(dispensable)
            headings, *lines = [[*line[:at], *line[at + 1 :]] for line in (headings, *lines)]
    return layout.table(headings, lines)


def _ranking_cells(ranking: Ranking, method: str) -> list[str]:
    """Interval, group, difference to the best, p value and verdict."""
    low, high = ranking.intervals[method]
    cells = [f"{100 * low:.1f} to {100 * high:.1f}", ranking.groups.get(method, MISSING)]
    pair = ranking.against_best(method)
    if pair is None:
        reason = ranking.not_compared.get(method)
        return [*cells, MISSING if reason is None else NOT_COMPARED[reason], MISSING, MISSING]
    return [
        *cells,
        f"{100 * pair.difference:+.1f} ({100 * pair.low:+.1f} to {100 * pair.high:+.1f})",
        _p(pair.p),
        pair.verdict,
    ]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def decision_notes(ranking: Ranking, titles: Mapping[str, str]) -> list[str]:
    """Say what is decided, and what would decide the rest. `titles` are display names."""
    texts = (_verdicts(ranking), seeds_added_text(ranking, titles), plans_text(ranking, titles))
    return [text for text in texts if text]


def _verdicts(ranking: Ranking) -> str:
    """Count the pairs of methods by verdict; '' for a single pair."""
    if len(ranking.pairs) < 2:
        return ""
    separable = sum(pair.is_separable for pair in ranking.pairs)
    equal = sum(pair.is_equal for pair in ranking.pairs)
    undecided = len(ranking.pairs) - separable - equal
    return (
        f"Of {counted(len(ranking.pairs), 'pair')} of methods, {separable} "
        f"{'differs' if separable == 1 else 'differ'}, {equal} {'is' if equal == 1 else 'are'} "
        f"equal within {points(ranking.margin)} and {undecided} "
        f"{'is' if undecided == 1 else 'are'} undecided."
    )


def ranking_notes(comparison: Comparison) -> list[str]:
    """Notes below the table: how to read it, the Pareto fronts, methods without a group."""
    lines = (
        [RANKING_NOTE] if any(ranking.groups for ranking in comparison.rankings.values()) else []
    )
    for recipe, ranking in comparison.rankings.items():
        titles = {row.method: row.title for row in comparison.rows() if row.recipe == recipe}
        where = f"{recipe}: " if len(comparison.rankings) > 1 else ""
        lines += [where + text for text in decision_notes(ranking, titles)]
        front = [titles[method] for method, on in ranking.pareto_optimal.items() if on]
        if len([on for on in ranking.pareto_optimal.values() if on is not None]) > 1:
            lines.append(
                f"{where}Pareto front of {METRICS[ranking.metric].in_text}, "
                f"time, memory and parameters: {', '.join(front)}."
            )
        excluded = [
            titles[method]
            for method, reason in ranking.not_compared.items()
            if reason is NotCompared.OTHER_EXAMPLES
        ]
        if excluded:
            lines.append(
                f"{where}{', '.join(excluded)}: tested on different examples than the other "
                "methods, so not assigned to a group."
            )
    return lines
