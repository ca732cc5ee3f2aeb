"""Tables of the HTML report as plain values. All text is formatted here, not in the template."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from peft_methods.analysis.comparison import MetricSummary, Row
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.regression_report import Change
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.families import by_family
from peft_methods.report.formatting import MISSING, have_heads, seconds_digits
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.report.text.columns import is_quality, shown_qualities
from peft_methods.tasks.metrics import Metric

Write = Callable[[float], str]
RANKED = (  # besides quality
    "train_seconds",
    "samples_per_second",
    "peak_memory_bytes",
    "checkpoint_bytes",
    "saved_model_bytes",
)


def comparison_table(rows: Sequence[Row], ranking: Ranking) -> Table:
    """Build one row per method: quality, interval, group, parameters, costs, Pareto front."""
    others = [name for name in shown_qualities(rows, ranking) if name != ranking.metric]
    digits, column = seconds_digits(rows), partial(_column, rows, ranking.left_out)
    named = {
        METRICS[ranking.metric].title: column(ranking.metric),
        "95 % interval": _intervals(rows, ranking),
        "Group": [_text(ranking.groups.get(row.method)) for row in rows],
        **{METRICS[other].title: column(other) for other in others},
        f"Trainable{' + head' * have_heads(rows)}": [_parameters(row) for row in rows],
        "Share": column("trainable_share", lambda value: f"{100 * value:.2f} %"),
        "Train time": _with_bars(column("train_seconds", lambda value: f"{value:.{digits}f} s")),
        "Samples/s": column("samples_per_second", lambda value: f"{value:,.1f}"),
        "Peak memory": _with_bars(
            column("peak_memory_bytes", lambda value: f"{value / 2**20:,.0f} MiB")
        ),
        METRICS["checkpoint_bytes"].title: column("checkpoint_bytes"),
        METRICS["saved_model_bytes"].title: column("saved_model_bytes"),
        "Front": [_front_item(ranking.pareto_optimal.get(row.method)) for row in rows],
    }
    shown = {
        title: items
        for title, items in named.items()
        if any(item.sort is not None for item in items)
    }
    lines = [
        Line(row.title, items, style_of(row.method).color, note_of(row, ranking))
        for row, items in zip(
            rows, zip(*shown.values(), strict=True) if shown else [()] * len(rows), strict=True
        )
    ]
    return Table(
        "Method",
        tuple(shown),
        tuple(lines),
        frozenset({"95 % interval", "Group", "Front"}),
        tuple(by_family([row.method for row in rows])),
    )


def note_of(row: Row, ranking: Ranking) -> str:
    """Name the rules with an error, and describe seeds without a result, or a single seed."""
    statuses = ", ".join(dict.fromkeys(record.status for record in row.missing))
    if row.missing and row.seeds:
        statuses = f"{len(row.missing)} of {len(row.missing) + len(row.seeds)} seeds {statuses}"
    elif len(row.seeds) == 1:
        statuses = "one seed"
    rules = ", ".join(ranking.left_out.get(row.method, ()))
    return "; ".join(filter(None, [f"error {rules}" * bool(rules), statuses]))


def value_item(figure: MetricSummary | None, metric: Metric, write: Write | None = None) -> Item:
    """Format a mean, with its standard deviation if the seeds differ.

    `write` formats both numbers; without it the metric's own format is used.
    """
    if figure is None:
        return Item(MISSING)
    mean = (write or metric.format)(figure.mean)
    # A deviation this small is the rounding error of the mean: all seeds have the same value.
    if figure.deviation is None or figure.deviation <= 1e-12 * abs(figure.mean):
        return Item(mean, figure.mean)
    spread = (
        write(figure.deviation).partition(" ")[0]
        if write
        else metric.spread(figure.deviation, figure.mean)
    )
    return Item(mean, figure.mean, note=f"± {spread}")


def _column(
    rows: Sequence[Row], left_out: Collection[str], name: str, write: Write | None = None
) -> list[Item]:
    """Format a metric, and mark its best value; methods in `left_out` are no candidates."""
    items = [value_item(row.metrics.get(name), METRICS[name], write) for row in rows]
    sound = [row.method not in left_out for row in rows]
    values = [
        item.sort
        for item, is_sound in zip(items, sound, strict=True)
        if is_sound and isinstance(item.sort, float)
    ]
    if not (name in RANKED or is_quality(name)) or len(set(values)) < 2:
        return items
    best = max(values) if METRICS[name].higher_is_better else min(values)
    return [
        replace(item, is_best=is_sound and item.sort == best)
        for item, is_sound in zip(items, sound, strict=True)
    ]


def _with_bars(items: Sequence[Item]) -> list[Item]:
    """Add bars, relative to the largest value."""
    most = max((item.sort for item in items if isinstance(item.sort, float)), default=0.0)
    return [
        replace(item, share=item.sort / most) if isinstance(item.sort, float) and most > 0 else item
        for item in items
    ]


def _intervals(rows: Sequence[Row], ranking: Ranking) -> list[Item]:
    """Draw all intervals on one axis, from the lowest end to the highest."""
    known = ranking.intervals
    low = min((low for low, _ in known.values()), default=0.0)
    high = max((high for _, high in known.values()), default=1.0)
    width = (high - low) or 1.0

    def item(row: Row) -> Item:
        if row.method not in known:
            return Item(MISSING)
        start, end = known[row.method]
        span = (
            (start - low) / width,
            (end - low) / width,
            (row.mean(ranking.metric) - low) / width,
        )
        return Item(METRICS[ranking.metric].range_text((start, end)), start, span=span)

    return [item(row) for row in rows]


def _text(text: str | None) -> Item:
    return Item(text, text) if text else Item(MISSING)


def _parameters(row: Row) -> Item:
    if "method_parameters" not in row.metrics:
        return Item(MISSING)
    count, head = row.mean("method_parameters"), row.mean("head_parameters")
    return Item(f"{count:,.0f}", count, note=f"+ {head:,.0f}" if head > 0 else "")


def _front_item(on: bool | None) -> Item:
    return Item(MISSING) if on is None else Item("yes" if on else "no", 0.0 if on else 1.0)


def differences_table(rows: Sequence[Row], ranking: Ranking) -> Table | None:
    """Build the table of each method's difference to the best one.

    The last column is the probability that a new seed beats one of the best; None without pairs.
    """
    titles = {row.method: row.title for row in rows}
    if not ranking.pairs:
        return None
    lines, metric = [], METRICS[ranking.metric]
    for method in ranking.order[1:]:
        pair = ranking.against_best(method)
        assert pair is not None, "the order contains compared methods only"
        difference = Item(metric.plain(pair.difference, "+"), pair.difference)
        interval = Item(metric.range_text((pair.low, pair.high), "+"), pair.low)
        p = Item("< 0.001" if pair.p < 0.001 else f"{pair.p:.3f}", pair.p)
        wins = Item(MISSING) if pair.wins is None else Item(f"{pair.wins:.0%}", pair.wins)
        lines.append(
            Line(
                titles[method],
                (difference, interval, p, _text(pair.verdict), wins),
                style_of(method).color,
            )
        )
    headings = (
        metric.points.capitalize() or "Difference",
        "95 % for all pairs",
        "p (Holm)",
        "Verdict",
        "New seed better",
    )
    return Table(
        f"Against {titles[ranking.order[0]]}", headings, tuple(lines), frozenset({"Verdict"})
    )


def metrics_table(rows: Sequence[Row]) -> Table:
    """Build the table of all metrics that any method has: one row per metric, one column each."""
    lines = [
        Line(metric.title, tuple(value_item(row.metrics.get(name), metric) for row in rows))
        for name, metric in METRICS.items()
        if any(name in row.metrics for row in rows)
    ]
    return Table("Metric", tuple(row.title for row in rows), tuple(lines))


def baseline_table(changes: Iterable[tuple[Row, Sequence[Change]]]) -> Table | None:
    """Build one row per method and metric in the regression check, or None if it is empty."""
    lines = [
        Line(row.title, _change(change), style_of(row.method).color)
        for row, found in changes
        for change in found
    ]
    headings = (
        "Metric",
        "Baseline",
        "Now",
        "Worse by",
        "Tolerance",
        "Explained by chance",
        "Verdict",
    )
    return (
        Table("Method", headings, tuple(lines), frozenset({"Metric", "Verdict"})) if lines else None
    )


def _change(change: Change) -> tuple[Item, ...]:
    metric, tolerance = METRICS[change.tolerance.metric], change.tolerance
    explained = (
        Item(MISSING)
        if change.explained is None
        else Item(tolerance.formatted(change.explained), change.explained)
    )
    return (
        _text(metric.title),
        Item(metric.format(change.before), change.before),
        Item(metric.format(change.now), change.now),
        Item(tolerance.formatted(change.worse) if change.worse > 0 else "not worse", change.worse),
        Item(tolerance.formatted(tolerance.amount), tolerance.amount),
        explained,
        _text(_verdict(change)),
    )


def _verdict(change: Change) -> str:
    if change.fails:
        return "worse"
    if change.worse <= 0:
        return "not worse"
    if not change.tolerance.is_exceeded(change.worse):
        return "within tolerance"
    return "not judged" if change.explained is None else "explained by chance"
