"""What tuning tried: the validation quality of each trial over its learning rate, a small plot a method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_methods.comparing import Row
from peft_methods.metrics import METRICS
from peft_methods.report.charts.base import Chart, Compared, noted, without_figures
from peft_methods.report.charts.canvas import INK, MUTED, drawn
from peft_methods.report.charts.lines import few_ticks, log_ticks
from peft_methods.report.charts.panels import mark_of, panels
from peft_methods.report.colors import style_of
from peft_methods.report.shown import NOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE = "learning_rate"
Tuning = dict[str, Any]  # a record's


def tuning_chart(compared: Compared) -> Chart | None:
    """The trials of the methods that were tuned."""
    found = {
        row.method: tuning
        for row in compared.rows
        if (tuning := _tuning(compared, row)) and _judged(tuning)
    }
    if not found:
        return None
    rows = [row for row in compared.rows if row.method in found]
    metric = METRICS[str(next(iter(found.values()))["select_by"])]
    said = (
        "; ".join(f"{row.title} {_said(found[row.method], metric.format)}" for row in rows)
        + "."
        + without_figures(compared.rows)
    )
    title = f"Validation {metric.title.lower() if metric.name == 'accuracy' else metric.title}, %"
    draw = partial(_draw, compared, found, rows, title)
    return Chart(
        "tuning", f"{title}, of tuning's trials, over learning rates", said, draw, compared.recipe
    )


def _tuning(compared: Compared, row: Row) -> Tuning | None:
    """How the method's hyperparameters were found: the same for all its seeds."""
    return next((record.tuning for record in compared.of(row.method) if record.tuning), None)


def _judged(tuning: Tuning) -> list[dict[str, Any]]:
    return [trial for trial in tuning["trials"] if trial["selection"] is not None]


def _said(tuning: Tuning, written: Any) -> str:
    own, chosen = tuning["trials"][0], tuning["chosen"].get(RATE)
    best = max(trial["selection"] for trial in _judged(tuning))
    before = NOTHING if own["selection"] is None else written(own["selection"])
    return f"{len(tuning['trials'])} trials, rate {own['settings'][RATE]:.3g} → {chosen:.3g}, validation {before} → {written(best)}"


@drawn
def _draw(compared: Compared, found: dict[str, Tuning], rows: Sequence[Row], title: str) -> Figure:
    def draw_one(axes: Axes, row: Row) -> None:
        _draw_trials(axes, row, found[row.method])

    def set_up(axes: Axes) -> None:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, 3)
        axes.margins(0.12)
        few_ticks(axes.yaxis, 4)

    legend = [
        mark_of("o", "trial"),
        mark_of("s", "the recipe's own setting", markerfacecolor="none"),
        mark_of("*", "chosen"),
    ]
    several = any(
        len(trial["settings"]) > 1 for tuning in found.values() for trial in tuning["trials"]
    )
    failed = sum(len(tuning["trials"]) - len(_judged(tuning)) for tuning in found.values())
    notes = [
        "The line joins the best trial at each rate"
        + (", whatever its other hyperparameters." if several else ".")
    ]
    notes += [f"Not shown: {failed} trials that could not be judged."] * bool(failed)
    notes = noted([" ".join(notes)], compared.rows)
    return panels(
        rows,
        draw_one,
        names=("Learning rate (logarithmic)", title),
        legend=legend,
        notes=notes,
        set_up=set_up,
    )


def _draw_trials(axes: Axes, row: Row, tuning: Tuning) -> None:
    style = style_of(row.method)
    points = [(trial["settings"][RATE], 100 * trial["selection"]) for trial in _judged(tuning)]
    best = {rate: max(value for other, value in points if other == rate) for rate, _ in points}
    axes.plot(sorted(best), [best[rate] for rate in sorted(best)], color=MUTED, linewidth=0.8)
    axes.plot(
        *zip(*points, strict=True),
        "o",
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.5,
        markersize=4,
    )
    own = tuning["trials"][0]
    if own["selection"] is not None:
        where = (own["settings"][RATE], 100 * own["selection"])
        axes.plot(
            *where,
            "s",
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=0.9,
            markersize=7.5,
        )
    winner = max(
        _judged(tuning),
        key=lambda trial: (trial["settings"] == tuning["chosen"], trial["selection"]),
    )
    where = (winner["settings"][RATE], 100 * winner["selection"])
    axes.plot(
        *where, "*", color=style.color, markeredgecolor=INK, markeredgewidth=0.7, markersize=9
    )
