"""Settings, environment and data of the runs in a section.

Values that all runs share are listed once; the others are listed run by run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.analysis.comparison import Row, title_of
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import (
    MISSING,
    flatten,
    format_setting,
    format_time,
    without_home,
)
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.report.reproduce import CommandFormat, Reproduction, reproduction
from peft_methods.runs.record import Record
from peft_methods.runs.tuning_text import outcome_text
from peft_methods.tasks.metrics import in_seconds
from peft_methods.tasks.registry import task_of

EXCLUDED = ("trained_between", "source.dirty", "compiled_graphs")
RUN_COSTS = ("train_seconds", "peak_memory_bytes")
Conditions = dict[str, str]  # environment and data of a run: value by dotted name


@dataclass(frozen=True)
class MethodView:
    """Hyperparameters of one row, how they were tuned (if at all), and how to reproduce the row."""

    title: str
    color: str
    settings: tuple[tuple[str, str], ...]
    tuning: str
    reproduction: Reproduction
    command: str


def method_view(row: Row, records: Sequence[Record], command: CommandFormat) -> MethodView:
    """Collect one row's hyperparameters and the command that reproduces it."""
    hyperparameters = tuple(
        (name, format_setting(value))
        for name, value in records[0].spec.method_settings().items()
        if value is not None
    )
    how = reproduction(records)
    return MethodView(
        row.title,
        style_of(row.method).color,
        hyperparameters,
        _tuning_summary(records[0]),
        how,
        command(how.options),
    )


def _tuning_summary(record: Record) -> str:
    tuning = record.tuning
    if not tuning:
        return ""
    cost = f"{in_seconds(tuning['train_seconds'])} of training on validation data"
    return f"{outcome_text(tuning)}; {cost}"


def settings(record: Record) -> tuple[tuple[str, str], ...]:
    """The requested settings: the recipe's, the engine and the device. Unset values are omitted."""
    requested = {
        **flatten(record.spec.recipe_settings()),
        "engine": record.spec.engine,
        "device": record.spec.device,
    }
    return tuple(
        (name, format_setting(value)) for name, value in requested.items() if value is not None
    )


def split_common(records: Iterable[Record]) -> tuple[Conditions, dict[str, Conditions]]:
    """Split conditions into those all runs share and, by fingerprint, those that differ.

    Runs that did not start have no environment and are ignored.
    """
    started = [record for record in records if record.environment]
    if not started:
        return {}, {}
    first = started[0]
    same = _same(first.environment, [one.environment for one in started])
    alike = _same(first.data, [one.data for one in started])
    found = {one.fingerprint: _conditions(one, same, alike) for one in started}
    whole, own = _conditions(first), found[first.fingerprint]
    common = {
        name: value
        for name, value in whole.items()
        if name not in own or all(one.get(name) == value for one in found.values())
    }
    return common, {
        identity: {name: value for name, value in one.items() if name not in common}
        for identity, one in found.items()
    }


def _same(first: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names that have the same value everywhere."""
    others, missing = list(others), object()
    return {
        name
        for name, value in first.items()
        if [one.get(name, missing) for one in others].count(value) == len(others)
    }


def _conditions(
    record: Record, same: Collection[str] = (), alike: Collection[str] = ()
) -> Conditions:
    """Environment and data of a run, each value as text, without `same` and `alike` of them."""
    environment = {name: value for name, value in record.environment.items() if name not in same}
    data = {name: value for name, value in record.data.items() if name not in alike}
    values = {**flatten(environment), **flatten(data, "data.")}
    return {
        name: format_setting(value)
        for name, value in values.items()
        if not name.startswith(EXCLUDED) and value not in (None, "")
    }


def runs_table(records: Sequence[Record], specific: Mapping[str, Conditions]) -> Table:
    """One row per run: seed, status, metrics, end time, record, and run-specific conditions."""
    task = task_of(records[0].spec.recipe)
    qualities = [*task.metrics[: task.shown_metrics], *task.further_metrics]
    names = (*(metric.name for metric in qualities), *RUN_COSTS)
    shown = [name for name in names if any(r.metrics.get(name) is not None for r in records)]
    lines = tuple(
        _run_line(record, shown, specific.get(record.fingerprint, {})) for record in records
    )
    headings = (
        "Seed",
        "Status",
        *(METRICS[name].title for name in shown),
        "Best epoch",
        "Finished",
        "Record",
        "Run-specific",
    )
    return Table(
        "Method", headings, lines, frozenset({"Status", "Finished", "Record", "Run-specific"})
    )


def _run_line(record: Record, shown: Sequence[str], specific: Conditions) -> Line:
    details = [without_home(record.message)] if record.message else []
    details += [f"{name} {value}" for name, value in specific.items()]
    items = [Item(str(record.seed), record.seed), Item(record.status, record.status)]
    items += [_metric_item(record.metrics.get(name), name) for name in shown]
    best = record.best_epoch
    items += [
        Item(MISSING) if best is None else Item(f"{best} of {len(record.epochs)}", best),
        Item(format_time(record.finished), record.finished),
    ]
    items += [Item(record.fingerprint, record.fingerprint), Item("; ".join(details))]
    return Line(title_of(record.method_name), tuple(items), style_of(record.method_name).color)


def _metric_item(value: float | None, name: str) -> Item:
    return Item(MISSING) if value is None else Item(METRICS[name].format(value), value)
