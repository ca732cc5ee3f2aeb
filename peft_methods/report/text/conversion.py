"""An adapter and its conversions to LoRA as a table: what they cost, and what they lose."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from peft_methods.runs.conversion import Conversion, Measured
from peft_methods.tasks.metrics import Metric
from peft_methods.tasks.registry import TASKS

MISSING = "–"
EXPLAINED = (
    "Parameters are those without the head, which stays as it is. Error of the weights: the\n"
    "Frobenius norm of the converted minus the original update, divided by that of the original\n"
    "update."
)
OTHER_ROWS = (
    "These are not the rows of its run: what its record says of it was measured on other ones."
)


def conversion_text(conversion: Conversion) -> str:
    """Format an adapter and its conversions, and where they were saved."""
    run, original = conversion.run, conversion.original
    task = TASKS[run.recipe.task]
    main = task.metric(run.recipe.selection_metric)
    # An adapter whose outputs are not finite has no scores, nor has any of random weights.
    known = {name for one in (original, *conversion.converted) for name in one.scores}
    others = [one for one in task.metrics if one.name in known and one != main]
    shown = [main, *others][: task.shown_metrics] if known else []
    headers = ["Adapter", "Parameters", "Error of\nthe weights", *(one.title for one in shown)]
    if shown:
        headers.append(f"Change of\n{main.in_text}")
    rows = [_row(one, original, shown) for one in (original, *conversion.converted)]
    aligned = ("left", *["right"] * (len(headers) - 1))
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=aligned)
    source = f"{conversion.rows:,} test rows of {run.recipe.data.source}"
    title = f"{_made(conversion)} by the recipe {run.recipe.name}; {source}"
    others_rows = () if conversion.same_rows else (OTHER_ROWS,)
    saved = [f"saved: {one.folder}" for one in conversion.converted if one.folder is not None]
    return "\n".join((title, "", table, "", EXPLAINED, *others_rows, *saved))


def _made(conversion: Conversion) -> str:
    """Describe how the adapter came to be."""
    title, origin = conversion.original.method.title, conversion.converted_from
    return f"{title}, converted from {origin} as trained" if origin else f"{title}, as trained"


def _row(one: Measured, original: Measured, shown: Sequence[Metric]) -> list[str]:
    name = one.method.title + (f", rank {one.rank}" if one.rank is not None else "")
    error = MISSING if one.error is None else f"{100 * one.error:.2f} %"
    count = MISSING if one.parameters is None else f"{one.parameters:,}"
    scores = [
        metric.format(one.scores[metric.name]) if metric.name in one.scores else MISSING
        for metric in shown
    ]
    change = [_change(one, original, shown[0])] if shown else []
    return [name, count, error, *scores, *change]


def _change(one: Measured, original: Measured, metric: Metric) -> str:
    if one is original or not (metric.name in one.scores and metric.name in original.scores):
        return MISSING
    change = one.scores[metric.name] - original.scores[metric.name]
    return f"{metric.plain(change, '+')} {metric.points}".rstrip()
