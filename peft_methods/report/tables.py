"""The report's tables as plain values: every text is made here, the template only places it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from peft_methods.comparing import Figure, Row
from peft_methods.gate import Change
from peft_methods.metrics import METRICS, Metric
from peft_methods.recommending import verdict_of
from peft_methods.report.colors import style_of
from peft_methods.report.shown import NOTHING, seconds_digits
from peft_methods.standing import COSTS, Standing

Write = Callable[[float], str]
RANKED = (
    "accuracy",
    "macro_f1",
    "train_seconds",
    "samples_per_second",
    "peak_memory_bytes",
    "checkpoint_bytes",
)


@dataclass(frozen=True)
class Item:
    """A cell of a table. It is sorted by `sort`, its raw value; None is missing and always last.

    `share` is the length of a bar in 0..1; `span` an interval's start, end and middle as shares of the column's axis.
    """

    text: str
    sort: float | str | None = None
    share: float | None = None
    span: tuple[float, float, float] | None = None
    is_best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is about, the colour that stands for it in the charts, and its cells."""

    title: str
    items: tuple[Item, ...]
    color: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """`about` heads the first column, `headings` the others; columns of `texts` are aligned as words."""

    about: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    texts: frozenset[str] = frozenset()

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each column holds."""
        return tuple("text" if heading in self.texts else "number" for heading in self.headings)


def comparison_table(rows: Sequence[Row], standing: Standing) -> Table:
    """A row a method: quality with interval and group, parameters, time, memory, and who is on the Pareto front."""
    other = "macro_f1" if standing.metric == "accuracy" else "accuracy"
    digits = seconds_digits(rows)
    named = {
        METRICS[standing.metric].title: _column(rows, standing.metric),
        "95 % interval": _intervals(rows, standing),
        "Group": [_text(standing.groups.get(row.method)) for row in rows],
        METRICS[other].title: _column(rows, other),
        "Trainable + head": [_parameters(row) for row in rows],
        "Share": _column(rows, "trainable_share", lambda value: f"{100 * value:.2f} %"),
        "Train time": _barred(
            _column(rows, "train_seconds", lambda value: f"{value:.{digits}f} s")
        ),
        "Samples/s": _column(rows, "samples_per_second", lambda value: f"{value:,.1f}"),
        "Peak memory": _barred(
            _column(rows, "peak_memory_bytes", lambda value: f"{value / 2**20:,.0f} MiB")
        ),
        "Saved weights": _column(rows, "checkpoint_bytes"),
        "Front": [_on_front(standing.on_front.get(row.method)) for row in rows],
    }
    shown = {
        title: items
        for title, items in named.items()
        if any(item.sort is not None for item in items)
    }
    lines = [
        Line(row.title, items, style_of(row.method).color, note_of(row))
        for row, items in zip(
            rows, zip(*shown.values(), strict=True) if shown else [()] * len(rows), strict=True
        )
    ]
    return Table(
        "Method", tuple(shown), tuple(lines), frozenset({"95 % interval", "Group", "Front"})
    )


def note_of(row: Row) -> str:
    """What became of seeds that yielded nothing."""
    if not row.missing:
        return "one seed" if len(row.seeds) == 1 else ""
    statuses = ", ".join(dict.fromkeys(record.status for record in row.missing))
    return (
        statuses
        if not row.seeds
        else f"{len(row.missing)} of {len(row.missing) + len(row.seeds)} seeds {statuses}"
    )


def figure_item(figure: Figure | None, metric: Metric, write: Write | None = None) -> Item:
    """A mean, with its standard deviation where seeds differ at all; as `write` has both, else as the metric is written."""
    if figure is None:
        return Item(NOTHING)
    counted = figure.deviation is None or figure.deviation <= 1e-12 * abs(
        figure.mean
    )  # no more than what a mean is rounded by
    mean = (write or metric.format)(figure.mean)
    if counted or figure.deviation is None:
        return Item(mean, figure.mean)
    spread = (
        write(figure.deviation).partition(" ")[0]
        if write
        else metric.spread(figure.deviation, figure.mean)
    )
    return Item(mean, figure.mean, note=f"± {spread}")


def _column(rows: Sequence[Row], name: str, write: Write | None = None) -> list[Item]:
    items = [figure_item(row.figures.get(name), METRICS[name], write) for row in rows]
    values = [item.sort for item in items if isinstance(item.sort, float)]
    if name not in RANKED or len(set(values)) < 2:
        return items
    best = max(values) if METRICS[name].better == "higher" else min(values)
    return [replace(item, is_best=item.sort == best) for item in items]


def _barred(items: Sequence[Item]) -> list[Item]:
    most = max((item.sort for item in items if isinstance(item.sort, float)), default=0.0)
    return [
        replace(item, share=item.sort / most) if isinstance(item.sort, float) and most > 0 else item
        for item in items
    ]


def _intervals(rows: Sequence[Row], standing: Standing) -> list[Item]:
    """Intervals on one axis, from the lowest end to the highest."""
    known = standing.intervals
    low, high = (
        min((low for low, _ in known.values()), default=0.0),
        max((high for _, high in known.values()), default=1.0),
    )
    reach = (high - low) or 1.0

    def item(row: Row) -> Item:
        if row.method not in known:
            return Item(NOTHING)
        start, end = known[row.method]
        span = (
            (start - low) / reach,
            (end - low) / reach,
            (row.mean(standing.metric) - low) / reach,
        )
        return Item(f"{100 * start:.1f} to {100 * end:.1f}", start, span=span)

    return [item(row) for row in rows]


def _text(text: str | None) -> Item:
    return Item(text, text) if text else Item(NOTHING)


def _parameters(row: Row) -> Item:
    if "method_parameters" not in row.figures:
        return Item(NOTHING)
    count = row.mean("method_parameters")
    return Item(f"{count:,.0f}", count, note=f"+ {row.mean('head_parameters'):,.0f}")


def _on_front(on: bool | None) -> Item:
    return Item(NOTHING) if on is None else Item("on it" if on else "no", 0.0 if on else 1.0)


def differences_table(rows: Sequence[Row], standing: Standing) -> Table | None:
    """How far each method is from the best one, with the interval that holds for all pairs at once; None where nothing is compared."""
    titles = {row.method: row.title for row in rows}
    if not standing.pairs:
        return None
    lines = []
    for method in standing.order[1:]:
        pair = standing.against_best(method)
        assert pair is not None, "the order has only methods that are compared"
        difference = Item(f"{100 * pair.difference:+.1f}", pair.difference)
        interval = Item(f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}", pair.low)
        p = Item("< 0.001" if pair.p < 0.001 else f"{pair.p:.3f}", pair.p)
        verdict = _text(verdict_of(pair).partition(":")[0])
        lines.append(
            Line(titles[method], (difference, interval, p, verdict), style_of(method).color)
        )
    headings = ("Points", "95 % for all pairs", "p (Holm)", "Verdict")
    return Table(
        f"Against {titles[standing.order[0]]}", headings, tuple(lines), frozenset({"Verdict"})
    )


def figures_table(rows: Sequence[Row]) -> Table:
    """Every metric that any method has: a row a metric, a column a method."""
    lines = [
        Line(metric.title, tuple(figure_item(row.figures.get(name), metric) for row in rows))
        for name, metric in METRICS.items()
        if any(name in row.figures for row in rows)
    ]
    return Table("Figure", tuple(row.title for row in rows), tuple(lines))


def baseline_table(changes: Iterable[tuple[Row, Sequence[Change]]]) -> Table | None:
    """A row for each metric of each method that the gate compared; None where it compared nothing."""
    lines = [
        Line(row.title, _change(change), style_of(row.method).color)
        for row, found in changes
        for change in found
    ]
    headings = ("Metric", "Baseline", "Now", "Worse by", "Tolerance", "Seeds explain", "Verdict")
    return (
        Table("Method", headings, tuple(lines), frozenset({"Metric", "Verdict"})) if lines else None
    )


def _change(change: Change) -> tuple[Item, ...]:
    metric, tolerance = METRICS[change.tolerance.metric], change.tolerance
    explained = (
        Item(NOTHING)
        if change.explained is None
        else Item(tolerance.said(change.explained), change.explained)
    )
    return (
        _text(metric.title),
        Item(metric.format(change.before), change.before),
        Item(metric.format(change.now), change.now),
        Item(tolerance.said(change.worse) if change.worse > 0 else "not worse", change.worse),
        Item(tolerance.said(tolerance.amount), tolerance.amount),
        explained,
        _text(_verdict(change)),
    )


def _verdict(change: Change) -> str:
    if change.fails:
        return "worse"
    if change.worse <= 0:
        return "not worse"
    return (
        "within what seeds explain"
        if change.tolerance.is_exceeded(change.worse)
        else "within tolerance"
    )


def front_said(rows: Sequence[Row], standing: Standing) -> str:
    """The methods on the Pareto front, in words; empty where there is none to speak of."""
    on = [row.title for row in rows if standing.on_front.get(row.method)]
    what = ", ".join(METRICS[name].title.lower() for name in (standing.metric, *COSTS))
    return (
        f"On the Pareto front of {what}: {', '.join(on)}."
        if len(standing.on_front) > 1 and on
        else ""
    )
