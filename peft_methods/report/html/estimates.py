"""Estimates of runs beside what was measured, as a table of the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.predicted import EstimateError, errors_of
from peft_methods.report.formatting import MISSING
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.runs.record import Record

HEADINGS = {"peak_memory_bytes": "peak", "train_seconds": "train time"}


def estimates_table(rows: Sequence[Row], records: Mapping[str, Sequence[Record]]) -> Table | None:
    """Build one row per method with an estimate: estimated, measured, the difference.

    `records` are those of each method; measured values are means over its seeds. None without any
    estimate.
    """
    errors = {
        row.method: [error for record in records[row.method] for error in errors_of(record)]
        for row in rows
    }
    known = {error.metric for found in errors.values() for error in found}
    shown = [metric for metric in HEADINGS if metric in known]
    if not shown:
        return None
    return Table(
        "Method",
        tuple(
            heading
            for metric in shown
            for heading in (
                f"Estimated {HEADINGS[metric]}",
                f"Measured {HEADINGS[metric]}",
                f"Difference, {HEADINGS[metric]}",
            )
        ),
        tuple(
            Line(
                row.title,
                tuple(item for metric in shown for item in _items(errors[row.method], metric)),
                style_of(row.method).color,
            )
            for row in rows
            if errors[row.method]
        ),
    )


def _items(errors: Sequence[EstimateError], metric: str) -> Iterator[Item]:
    own = [one for one in errors if one.metric == metric]
    if not own:
        yield from [Item(MISSING)] * 3
        return
    predicted, measured = fmean(one.predicted for one in own), fmean(one.measured for one in own)
    share = predicted / measured - 1
    outside = sum(not one.is_in_range for one in own)
    yield Item(own[0].format(predicted), predicted)
    yield Item(own[0].format(measured), measured)
    note = "" if not outside else f"{outside} of {len(own)} runs outside the estimated range"
    yield Item(f"{share:+.1%}", share, note=note)
