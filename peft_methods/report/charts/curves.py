"""Loss and quality over epochs, training and validation, one small plot per method.

Thin lines are seeds, thick lines their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Row
from peft_methods.recipes.schema import DEFAULT_METRIC
from peft_methods.report.charts.base import Chart, RecipeComparison, missing_note, with_missing_note
from peft_methods.report.charts.canvas import INK, styled
from peft_methods.report.charts.lines import axis_name, linear_ticks, log_ticks
from peft_methods.report.charts.panels import Dashes, line_entry, panel_grid
from peft_methods.report.formatting import MISSING
from peft_methods.report.palette import style_of
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import NATS, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOG_RATIO = 50.0  # ratio of the largest to the smallest loss above which the axis is logarithmic
DASHES: dict[str, Dashes] = {"train": (0, ()), "validation": (0, (5, 2.5))}
MARKERS = {"train": "o", "validation": "s"}
Curve = dict[int, float]  # by epoch
Keys = Mapping[str, str]  # key in a record's epochs -> "train" or "validation"


def losses_chart(compared: RecipeComparison) -> Chart | None:
    """Chart the losses. None for random weights, whose loss is meaningless."""
    title = ", ".join(filter(None, ["Loss", compared.task.loss_unit]))
    keys = {"train_loss": "train", "validation_loss": "validation"}
    return _chart(compared, "losses", title, keys)


def qualities_chart(compared: RecipeComparison) -> Chart | None:
    """Chart the selection metric on validation rows, and on training rows if recorded.

    None if it is the loss, which has a chart of its own.
    """
    metric = compared.epoch_quality
    if metric.unit == NATS:
        return None
    of_validation = "validation_accuracy" if metric.name == DEFAULT_METRIC else "selection"
    keys = {f"train_{metric.name}": "train", of_validation: "validation"}
    return _chart(compared, "accuracies", axis_name(metric), keys)


def _chart(compared: RecipeComparison, name: str, title: str, keys: Keys) -> Chart | None:
    rows = [row for row in compared.rows if any(_curves(compared, row, key) for key in keys)]
    if not rows or compared.has_random_weights:
        return None
    shown = {
        key: split
        for key, split in keys.items()
        if any(_curves(compared, row, key) for row in rows)
    }
    ends = "; ".join(f"{row.title} {_ends(compared, row, shown)}" for row in rows)
    text = (
        "Mean over seeds after the last epoch reached by all, "
        f"{' / '.join(shown.values())}: {ends}."
    )
    return Chart(
        name,
        f"{title}, by epoch",
        text + missing_note(compared.rows),
        partial(_draw, compared, rows, title, shown),
        compared.recipe,
    )


def _unit(compared: RecipeComparison, key: str) -> Unit:
    return NATS if _is_loss(key) else compared.epoch_quality.unit


def _is_loss(key: str) -> bool:
    return key.endswith("loss")


def _curve(record: Record, key: str, unit: Unit) -> Curve:
    """Known, finite values by epoch, in the axis's unit."""
    values = {int(epoch["epoch"] or 0): epoch.get(key) for epoch in record.epochs}
    return {
        number: value / unit.size
        for number, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _curves(compared: RecipeComparison, row: Row, key: str) -> list[Curve]:
    """The non-empty curves of a method's seeds."""
    unit, records = _unit(compared, key), compared.records_of(row.method)
    return [curve for record in records if (curve := _curve(record, key, unit))]


def _mean(curves: Sequence[Curve]) -> Curve:
    """Average over the epochs that every seed reached, so the mean does not jump when one ends."""
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {epoch: fmean(curve[epoch] for curve in curves) for epoch in common}


def _ends(compared: RecipeComparison, row: Row, keys: Keys) -> str:
    means = {key: _mean(_curves(compared, row, key)) for key in keys}
    last = {key: mean[max(mean)] if mean else None for key, mean in means.items()}
    return " / ".join(
        MISSING if value is None else unit.format(value * unit.size)
        for key, value in last.items()
        for unit in [_unit(compared, key)]
    )


@styled
def _draw(compared: RecipeComparison, rows: Sequence[Row], title: str, keys: Keys) -> Figure:
    drawn_curves = {(row.method, key): _curves(compared, row, key) for row in rows for key in keys}
    values = [
        value for curves in drawn_curves.values() for curve in curves for value in curve.values()
    ]
    several = any(len(curves) > 1 for curves in drawn_curves.values())

    def draw_one(axes: Axes, row: Row) -> None:
        for key, split in keys.items():
            _draw_curves(axes, row, drawn_curves[row.method, key], split)

    def set_up(axes: Axes) -> None:
        is_loss = _is_loss(next(iter(keys)))
        if is_loss and min(values) > 0 and max(values) / min(values) > LOG_RATIO:
            axes.set_yscale("log")
            log_ticks(axes.yaxis, 4)
        else:
            linear_ticks(axes.yaxis, 4)
        epochs = [epoch for curves in drawn_curves.values() for curve in curves for epoch in curve]
        axes.set_xlim(min(epochs) - 0.3, max(epochs) + 0.3)
        linear_ticks(axes.xaxis, 4, whole=True)

    legend = [line_entry(DASHES[split], f"{split} rows") for split in keys.values()]
    notes = [
        "Thin: seeds; thick: their mean over the epochs reached by all." if several else "One seed."
    ]
    return panel_grid(
        rows,
        draw_one,
        names=("Epoch", title),
        legend=legend,
        notes=with_missing_note(notes, compared.rows),
        set_up=set_up,
    )


def _draw_curves(axes: Axes, row: Row, curves: Sequence[Curve], split: str) -> None:
    color, dashes, mean = style_of(row.method).color, DASHES[split], _mean(curves)
    for curve in curves if len(curves) > 1 else ():
        axes.plot(
            list(curve),
            list(curve.values()),
            color=INK,
            linewidth=0.5,
            linestyle=dashes,
            alpha=0.5,
            clip_on=False,
        )
    points = list(mean), list(mean.values())
    # An outline around the coloured line: makes yellow visible on white and grey on black.
    axes.plot(*points, color=INK, linewidth=2.2, linestyle=dashes, clip_on=False)
    marker = MARKERS[split] if len(mean) <= 12 else ""
    axes.plot(
        *points,
        color=color,
        linewidth=1.5,
        linestyle=dashes,
        marker=marker,
        markersize=3,
        markeredgecolor=INK,
        markeredgewidth=0.4,
        clip_on=False,
    )
