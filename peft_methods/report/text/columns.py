"""The columns of the comparison table by name, and those that fit a width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import MetricSummary, Row
from peft_methods.analysis.constraints import METRIC_OF
from peft_methods.analysis.ranking import Ranking
from peft_methods.profiling.metrics import COST_METRICS, METRICS
from peft_methods.report.formatting import MISSING, have_heads, seconds_digits, trainable_text
from peft_methods.tasks.metrics import BYTES, PER_SECOND, SECONDS, SHARE
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import OptionError, unknown

BEST = "*"
RANKED = ("train_seconds", "samples_per_second", "peak_memory_bytes")  # besides quality
COSTS = ("trainable_share", "train_seconds", "samples_per_second", "peak_memory_bytes")


@dataclass(frozen=True)
class Cell:
    """A cell of the table; `is_best` marks the best value of its column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class TableRows:
    """The rows of one recipe, and what the cells of a column have in common."""

    rows: tuple[Row, ...]
    ranking: Ranking

    def best(self, name: str) -> float | None:
        """Return the best mean of a metric; None if fewer than two sound rows have it."""
        values = [
            row.metrics[name].mean
            for row in self.rows
            if name in row.metrics and row.method not in self.ranking.left_out
        ]
        if len(values) < 2 or METRICS[name].higher_is_better is None:
            return None
        return max(values) if METRICS[name].higher_is_better else min(values)


@dataclass(frozen=True)
class Column:
    """A column of the table. A heading may have two lines."""

    name: str
    heading: str
    cells: Callable[[TableRows], list[Cell]]


def _group(table: TableRows) -> list[Cell]:
    return [Cell(table.ranking.groups.get(row.method, MISSING)) for row in table.rows]


def _interval(table: TableRows) -> list[Cell]:
    metric = METRICS[table.ranking.metric]
    texts = {method: metric.range_text(ends) for method, ends in table.ranking.intervals.items()}
    return [Cell(texts.get(row.method, MISSING)) for row in table.rows]


def _front(table: TableRows) -> list[Cell]:
    words = {None: MISSING, True: "yes", False: "no"}
    return [Cell(words[table.ranking.pareto_optimal.get(row.method)]) for row in table.rows]


def _parameters(table: TableRows) -> list[Cell]:
    return [Cell(trainable_text(row)) for row in table.rows]


def _trained(table: TableRows) -> list[Cell]:
    return [
        Cell(f"{row.mean('method_parameters') + row.mean('head_parameters'):,.0f}")
        if {"method_parameters", "head_parameters"} <= row.metrics.keys()
        else Cell(MISSING)
        for row in table.rows
    ]


OWN = {
    column.name: column
    for column in (
        Column("group", "Group", _group),
        Column("interval", "95 %\ninterval", _interval),
        Column("pareto_front", "Pareto\nfront", _front),
        Column("parameters", "Trainable\n(method + head)", _parameters),
        Column("trainable", "Trainable", _trained),
    )
}
HEADINGS = {
    "trainable_share": "%",
    "train_seconds": "Train\ntime",
    "samples_per_second": "Samples/s",
    "peak_memory_bytes": "Peak\nmemory",
    "checkpoint_bytes": "Weights\nper task",
    "saved_model_bytes": "Saved\nmodel",
}
ALIASES = dict(METRIC_OF)  # the names of the limits on recommendations


def column_names() -> tuple[str, ...]:
    """Return the names of all columns that can be chosen."""
    return (*OWN, *METRICS, *ALIASES)


def check_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of columns without duplicates. Raises `OptionError` for an unknown name."""
    known = column_names()
    for name in names:
        if name not in known:
            raise OptionError(f"columns: {unknown('column', name, known)}", setting="columns")
    return tuple(dict.fromkeys(ALIASES.get(name, name) for name in names))


def column(name: str, *, with_spread: bool = True) -> Column:
    """Return a column by name; that of a metric has mean and standard deviation over seeds."""
    if name in OWN:
        return OWN[name]
    heading = HEADINGS.get(name, METRICS[name].title)
    return Column(name, heading, lambda table: _metric_cells(table, name, with_spread=with_spread))


def _metric_cells(table: TableRows, name: str, *, with_spread: bool) -> list[Cell]:
    is_ranked = name in RANKED or is_quality(name)
    best = table.best(name) if is_ranked else None
    digits = seconds_digits(table.rows)
    cells = []
    for row in table.rows:
        figure = row.metrics.get(name)
        if figure is None:
            cells.append(Cell(MISSING))
            continue
        is_best = figure.mean == best and row.method not in table.ranking.left_out
        text = _figure(name, figure, digits, with_spread=with_spread)
        text += " (1 seed)" * (name == table.ranking.metric and figure.count == 1)
        mark = (f" {BEST}" if is_best else " " * (1 + len(BEST))) if is_ranked else ""
        cells.append(Cell(f"{text}{mark}", is_best))
    return cells


def shown_qualities(rows: Sequence[Row], ranking: Ranking) -> list[str]:
    """Return the qualities that tables show: those of the task, and the one that is ranked by.

    The ranked one comes first if it is not among them; then the others must have been measured.
    """
    metric, measured = ranking.metric, {name for row in rows for name in row.metrics}
    having = [task for task in TASKS.values() if any(one.name == metric for one in task.metrics)]
    tasks = [task for task in having if task.metrics[0].name in measured] or having
    names = [one.name for one in tasks[0].metrics[: tasks[0].shown_metrics]] if tasks else []
    if metric in names:
        return names
    return [metric, *(name for name in names if name in measured)]


def is_quality(name: str) -> bool:
    """Whether a metric is one of predictions, which a task defines."""
    return name not in {metric.name for metric in COST_METRICS}


def _figure(name: str, figure: MetricSummary, digits: int, *, with_spread: bool) -> str:
    """Format a mean, with its standard deviation for quality and the training time."""
    metric = METRICS[name]
    if name == "trainable_share":
        return f"{100 * figure.mean:.2f}"
    if name == "peak_memory_bytes":
        return f"{figure.mean / BYTES.size:,.0f}{BYTES.suffix}"
    if metric.unit == PER_SECOND:
        return f"{figure.mean:,.1f}"
    is_spread = is_quality(name) or metric.unit in {SHARE, SECONDS}
    shown = is_spread and with_spread and figure.deviation is not None
    decimals = digits if name == "train_seconds" else metric.unit.decimals_of(figure.mean)
    spread = f" ± {metric.unit.number(figure.deviation or 0.0, decimals)}" if shown else ""
    suffix = "" if is_quality(name) else metric.unit.suffix
    return f"{metric.unit.number(figure.mean, decimals)}{spread}{suffix}"


def usual_columns(table: TableRows) -> list[list[Column]]:
    """Return the usual columns, the widest choice first, each narrower than the one before."""
    metric, first = table.ranking.metric, shown_qualities(table.rows, table.ranking)
    quality = [name for name in first if name != metric]
    groups = ["group"] if table.ranking.groups else []
    parameters = "parameters" if have_heads(table.rows) else "trainable"
    names = [*first, *groups, parameters, *COSTS]
    choices = [names]
    for left_out in ("samples_per_second", "trainable_share", *reversed(quality)):
        names = [name for name in names if name != left_out]
        choices.append(names)
    names = ["trainable" if name == "parameters" else name for name in names]
    choices.append(names)
    columns = [[column(name) for name in choice] for choice in choices]
    for left_out in ("", "group", "trainable", "peak_memory_bytes"):
        names = [name for name in names if name != left_out]
        columns.append([column(name, with_spread=name not in RANKED) for name in names])
    return columns


def missing_columns(shown: Sequence[Column], every: Sequence[Column]) -> list[str]:
    """Return the names of the columns that are not shown, as users choose them."""
    names = {column.name for column in shown}
    if "trainable" in names:
        names.add("parameters")
    return [column.name for column in every if column.name not in names]
