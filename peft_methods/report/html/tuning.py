"""The best validation score to expect from fewer tuning trials, as a table of the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis.comparison import Row
from peft_methods.report.formatting import MISSING
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.runs.record import Record
from peft_methods.runs.tuning_curve import counts_shown, curve_of, metric_of
from peft_methods.tasks.metrics import Metric
from peft_methods.utils.words import counted


def tuning_table(rows: Sequence[Row], records: Mapping[str, Sequence[Record]]) -> Table | None:
    """Build one row per tuned method, one column per number of trials; None without a score.

    `records` are those of each method.
    """
    found = []
    for row in rows:
        tuning = next((one.tuning for one in records[row.method] if one.tuning), None)
        if tuning and (curve := curve_of(tuning)):
            found.append((row, curve, metric_of(tuning)))
    if not found:
        return None
    counts = counts_shown(max(len(curve) for _, curve, _ in found))
    return Table(
        f"Expected best validation {found[0][2].in_text}",
        tuple(counted(count, "trial") for count in counts),
        tuple(
            Line(row.title, _items(curve, metric, counts), style_of(row.method).color)
            for row, curve, metric in found
        ),
    )


def _items(curve: Sequence[float], metric: Metric, counts: Sequence[int]) -> tuple[Item, ...]:
    return tuple(
        Item(metric.format(curve[count - 1]), curve[count - 1])
        if count <= len(curve)
        else Item(MISSING)
        for count in counts
    )
