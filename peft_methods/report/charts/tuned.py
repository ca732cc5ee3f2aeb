"""Tuning trials: validation quality against learning rate, one small plot per method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.comparison import Row
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.charts.base import Chart, RecipeComparison, missing_note, with_missing_note
from peft_methods.report.charts.canvas import INK, MUTED, styled
from peft_methods.report.charts.lines import linear_ticks, log_ticks
from peft_methods.report.charts.panels import marker_entry, panel_grid
from peft_methods.report.formatting import MISSING
from peft_methods.report.palette import style_of
from peft_methods.tasks.metrics import Metric
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


RATE = "learning_rate"
Tuning = dict[str, Any]  # `Record.tuning`


def tuning_chart(compared: RecipeComparison) -> Chart | None:
    """Chart the trials of the tuned methods. None if no method was tuned."""
    found = {
        row.method: tuning
        for row in compared.rows
        if (tuning := _tuning(compared, row)) and _evaluated(tuning)
    }
    if not found:
        return None
    rows = [row for row in compared.rows if row.method in found]
    metric = METRICS[str(next(iter(found.values()))["select_by"])]
    text = "; ".join(f"{row.title} {_summary(found[row.method], metric)}" for row in rows)
    title = f"Validation {metric.title.lower() if metric.name == 'accuracy' else metric.title}"
    title += ", %" * metric.is_share
    draw = partial(_draw, compared, found, rows, title)
    return Chart(
        "tuning",
        f"{title}, of tuning trials, by learning rate",
        f"{text}.{missing_note(compared.rows)}",
        draw,
        compared.recipe,
    )


def _tuning(compared: RecipeComparison, row: Row) -> Tuning | None:
    """The search for the method's hyperparameters, which all its seeds share."""
    records = compared.records_of(row.method)
    return next((record.tuning for record in records if record.tuning), None)


def _evaluated(tuning: Tuning) -> list[dict[str, Any]]:
    return [trial for trial in tuning["trials"] if trial["selection"] is not None]


def _best(values: Iterable[float], metric: Metric) -> float:
    return max(values) if metric.sign() > 0 else min(values)


def _summary(tuning: Tuning, metric: Metric) -> str:
    """Describe a search. The first trial uses the recipe's own settings."""
    write = metric.format
    first, chosen = tuning["trials"][0], tuning["chosen"].get(RATE)
    best = _best((trial["selection"] for trial in _evaluated(tuning)), metric)
    before = MISSING if first["selection"] is None else write(first["selection"])
    trials = counted(len(tuning["trials"]), "trial")
    if tuning["chosen"] == first["settings"]:
        kept = f"rate {chosen:.3g} kept, validation {before}"
        return f"{trials}, {kept}" + (
            f", best trial {write(best)}" if before != write(best) else ""
        )
    return (
        f"{trials}, rate {first['settings'][RATE]:.3g} → {chosen:.3g}, "
        f"validation {before} → {write(best)}"
    )


@styled
def _draw(
    compared: RecipeComparison, found: dict[str, Tuning], rows: Sequence[Row], title: str
) -> Figure:
    def draw_one(axes: Axes, row: Row) -> None:
        _draw_trials(axes, row, found[row.method])

    def set_up(axes: Axes) -> None:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, 3)
        axes.margins(0.12)
        linear_ticks(axes.yaxis, 4)

    legend = [
        marker_entry("o", "trial"),
        marker_entry("s", "the recipe's setting", markerfacecolor="none"),
        marker_entry("*", "chosen"),
    ]
    several = any(
        len(trial["settings"]) > 1 for tuning in found.values() for trial in tuning["trials"]
    )
    failed = sum(len(tuning["trials"]) - len(_evaluated(tuning)) for tuning in found.values())
    notes = [
        "The line connects the best trial at each rate"
        + (", over all other hyperparameters." if several else ".")
    ]
    notes += [f"Not shown: {counted(failed, 'trial')} that could not be evaluated."] * bool(failed)
    notes = with_missing_note([" ".join(notes)], compared.rows)
    return panel_grid(
        rows,
        draw_one,
        names=("Learning rate (logarithmic)", title),
        legend=legend,
        notes=notes,
        set_up=set_up,
    )


def _draw_trials(axes: Axes, row: Row, tuning: Tuning) -> None:
    style, metric = style_of(row.method), METRICS[str(tuning["select_by"])]
    points = [
        (trial["settings"][RATE], metric.on_axis(trial["selection"]))
        for trial in _evaluated(tuning)
    ]
    best = {
        rate: _best((value for other, value in points if other == rate), metric)
        for rate, _ in points
    }
    axes.plot(sorted(best), [best[rate] for rate in sorted(best)], color=MUTED, linewidth=0.8)
    axes.plot(
        *zip(*points, strict=True),
        "o",
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.5,
        markersize=4,
    )
    first = tuning["trials"][0]
    if first["selection"] is not None:
        axes.plot(
            first["settings"][RATE],
            metric.on_axis(first["selection"]),
            "s",
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=0.9,
            markersize=7.5,
        )
    winner = max(
        _evaluated(tuning),
        key=lambda trial: (
            trial["settings"] == tuning["chosen"],
            metric.sign() * trial["selection"],
        ),
    )
    axes.plot(
        winner["settings"][RATE],
        metric.on_axis(winner["selection"]),
        "*",
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.7,
        markersize=9,
    )
