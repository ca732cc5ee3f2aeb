"""The table of standings: intervals, groups, and how far each method is from the best."""

from __future__ import annotations

from tabulate import tabulate

from peft_methods.comparing import Comparison, Row
from peft_methods.metrics import METRICS
from peft_methods.report.shown import NOTHING
from peft_methods.standing import NotCompared, Standing

SAID = (
    "Intervals: 95 %, over seeds and test examples together. Group: methods that share a letter cannot be told apart (every two "
    "compared on the same examples; intervals of differences hold for all pairs at once, p is Holm's)."
)


NOT_COMPARED = {
    NotCompared.ONE_SEED: "one seed: no spread",
    NotCompared.OTHER_EXAMPLES: "other test examples",
    NotCompared.NO_PREDICTIONS: "no predictions",
}


def standings_table(standing: Standing, rows: list[Row], style: str) -> str:
    """A row a method, best first; empty where no predictions were kept to judge by."""
    shown = sorted(
        (row for row in rows if row.method in standing.intervals),
        key=lambda row: -row.mean(standing.metric),
    )
    if not shown:
        return ""
    headers = (
        "Method",
        METRICS[standing.metric].title,
        "95 % interval",
        "Group",
        "To the best, points",
        "p",
    )
    lines = [
        [row.title, f"{100 * row.mean(standing.metric):.1f}", *_standing(standing, row.method)]
        for row in shown
    ]
    return tabulate(
        lines,
        headers=headers,
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * 5),
    )


def _standing(standing: Standing, method: str) -> list[str]:
    low, high = standing.intervals[method]
    said = [f"{100 * low:.1f} to {100 * high:.1f}", standing.groups.get(method, NOTHING)]
    pair = standing.against_best(method)
    if pair is None:
        reason = standing.left_out.get(method)
        return [*said, NOT_COMPARED[reason] if reason is not None else NOTHING, NOTHING]
    return [
        *said,
        f"{100 * pair.difference:+.1f} ({100 * pair.low:+.1f} to {100 * pair.high:+.1f})",
        _p(pair.p),
    ]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def said_of(comparison: Comparison) -> list[str]:
    """How to read the table, the Pareto front of each recipe, and who is in no group and why."""
    lines = [SAID] if any(standing.groups for standing in comparison.standings.values()) else []
    for recipe, standing in comparison.standings.items():
        titles = {row.method: row.title for row in comparison.rows() if row.recipe == recipe}
        where = f"{recipe}: " if len(comparison.standings) > 1 else ""
        front = [titles[method] for method, on in standing.on_front.items() if on]
        if len([on for on in standing.on_front.values() if on is not None]) > 1:
            lines.append(
                f"{where}Pareto front of {METRICS[standing.metric].title.lower()}, time, memory and parameters: {', '.join(front)}."
            )
        apart = [
            titles[method]
            for method, why in standing.left_out.items()
            if why is NotCompared.OTHER_EXAMPLES
        ]
        if apart:
            lines.append(
                f"{where}{', '.join(apart)}: tested on other examples than the rest, so in no group."
            )
    return lines
