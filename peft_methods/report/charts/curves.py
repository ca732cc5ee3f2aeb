"""Losses and quality over epochs, training and validation, a small plot a method: every seed thin, their mean thick."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from peft_methods.comparing import Row
from peft_methods.records import Record
from peft_methods.report.charts.base import Chart, Compared, noted, without_figures
from peft_methods.report.charts.canvas import INK, drawn
from peft_methods.report.charts.lines import few_ticks, log_ticks
from peft_methods.report.charts.panels import Dashes, line_of, panels
from peft_methods.report.colors import style_of
from peft_methods.report.shown import NOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEEP = 50.0  # times between the least and the greatest loss, from which on the axis is logarithmic
DASHES: dict[str, Dashes] = {"train": (0, ()), "validation": (0, (5, 2.5))}
MARKERS = {"train": "o", "validation": "s"}
Curve = dict[int, float]  # by epoch
Keys = Mapping[str, str]  # of a record's epochs: whose rows they are of


def losses_chart(compared: Compared) -> Chart | None:
    """Losses, where the recipe's weights make them mean something."""
    return _chart(
        compared, "losses", "Loss, nats", {"train_loss": "train", "validation_loss": "validation"}
    )


def qualities_chart(compared: Compared) -> Chart | None:
    """What the recipe selects by: on validation rows, and on training rows where a record has that."""
    of_validation = "validation_accuracy" if compared.ranking.metric == "accuracy" else "selection"
    keys = {f"train_{compared.ranking.metric}": "train", of_validation: "validation"}
    return _chart(compared, "accuracies", f"{compared.quality.title}, %", keys)


def _chart(compared: Compared, name: str, title: str, keys: Keys) -> Chart | None:
    rows = [row for row in compared.rows if any(_curves(compared, row, key) for key in keys)]
    if not rows or compared.is_random:
        return None
    shown = {
        key: whose
        for key, whose in keys.items()
        if any(_curves(compared, row, key) for row in rows)
    }
    ends = "; ".join(f"{row.title} {_ends(compared, row, shown)}" for row in rows)
    said = f"Mean over seeds after the last epoch that all reached, {' / '.join(shown.values())}: {ends}."
    said += without_figures(compared.rows)
    return Chart(
        name,
        f"{title}, by epoch",
        said,
        partial(_draw, compared, rows, title, shown),
        compared.recipe,
    )


def _scale(key: str) -> float:
    return 1.0 if key.endswith("loss") else 100.0


def _curve(record: Record, key: str) -> Curve:
    """What is known and finite, in the axis's unit."""
    told = {int(epoch["epoch"] or 0): epoch.get(key) for epoch in record.epochs}
    return {
        number: _scale(key) * value
        for number, value in told.items()
        if value is not None and math.isfinite(value)
    }


def _curves(compared: Compared, row: Row, key: str) -> list[Curve]:
    """Those of all seeds that have one."""
    return [curve for record in compared.of(row.method) if (curve := _curve(record, key))]


def _mean(curves: Sequence[Curve]) -> Curve:
    """Over the epochs that every seed reached: a mean over those that were left would jump."""
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {epoch: fmean(curve[epoch] for curve in curves) for epoch in common}


def _ends(compared: Compared, row: Row, keys: Keys) -> str:
    means = {key: _mean(_curves(compared, row, key)) for key in keys}
    last = {key: mean[max(mean)] if mean else None for key, mean in means.items()}
    return " / ".join(
        NOTHING if value is None else f"{value:.3f}" if _scale(key) == 1 else f"{value:.1f} %"
        for key, value in last.items()
    )


@drawn
def _draw(compared: Compared, rows: Sequence[Row], title: str, keys: Keys) -> Figure:
    drawn_curves = {(row.method, key): _curves(compared, row, key) for row in rows for key in keys}
    values = [
        value for curves in drawn_curves.values() for curve in curves for value in curve.values()
    ]
    several = any(len(curves) > 1 for curves in drawn_curves.values())

    def draw_one(axes: Axes, row: Row) -> None:
        for key, whose in keys.items():
            _draw_curves(axes, row, drawn_curves[row.method, key], whose)

    def set_up(axes: Axes) -> None:
        if _scale(next(iter(keys))) == 1 and min(values) > 0 and max(values) / min(values) > STEEP:
            axes.set_yscale("log")
            log_ticks(axes.yaxis, 4)
        else:
            few_ticks(axes.yaxis, 4)
        epochs = [epoch for curves in drawn_curves.values() for curve in curves for epoch in curve]
        axes.set_xlim(min(epochs) - 0.3, max(epochs) + 0.3)
        few_ticks(axes.xaxis, 4, whole=True)

    legend = [line_of(DASHES[whose], f"{whose} rows") for whose in keys.values()]
    notes = [
        "Thin: seeds; thick: their mean over the epochs that all reached."
        if several
        else "One seed."
    ]
    return panels(
        rows,
        draw_one,
        names=("Epoch", title),
        legend=legend,
        notes=noted(notes, compared.rows),
        set_up=set_up,
    )


def _draw_curves(axes: Axes, row: Row, curves: Sequence[Curve], whose: str) -> None:
    color, dashes, mean = style_of(row.method).color, DASHES[whose], _mean(curves)
    for curve in curves if len(curves) > 1 else ():
        axes.plot(
            list(curve), list(curve.values()), color=INK, linewidth=0.5, linestyle=dashes, alpha=0.5
        )
    where = list(mean), list(mean.values())
    axes.plot(
        *where, color=INK, linewidth=2.2, linestyle=dashes
    )  # around the next, so that yellow shows on white and grey on black
    marker = MARKERS[whose] if len(mean) <= 12 else ""
    axes.plot(
        *where,
        color=color,
        linewidth=1.5,
        linestyle=dashes,
        marker=marker,
        markersize=3,
        markeredgecolor=INK,
        markeredgewidth=0.4,
    )
