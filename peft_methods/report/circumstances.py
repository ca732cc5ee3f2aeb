"""Under what settings and where each cell ran: what all of a section have in common once, the rest cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from peft_methods.comparing import Row, title_of
from peft_methods.metrics import METRICS, in_seconds
from peft_methods.records import Record
from peft_methods.report.colors import style_of
from peft_methods.report.reproducing import Reproduction, reproduction
from peft_methods.report.shown import NOTHING, flattened, moment, plain, without_home
from peft_methods.report.tables import Item, Line, Table

NO_CIRCUMSTANCE = ("trained_between", "source.dirty", "compiled_graphs")
IN_CELLS = ("accuracy", "macro_f1", "validation_accuracy", "train_seconds", "peak_memory_bytes")
Circumstances = dict[str, str]


@dataclass(frozen=True)
class MethodView:
    """What one row was run with, how that was found where it was tuned, and how to run it again."""

    title: str
    color: str
    settings: tuple[tuple[str, str], ...]
    tuned: str
    again: Reproduction


def method_view(row: Row, records: Sequence[Record]) -> MethodView:
    """One row's hyperparameters and its command."""
    own = tuple(
        (name, plain(value))
        for name, value in records[0].cell["method"].items()
        if name != "name" and value is not None
    )
    return MethodView(
        row.title, style_of(row.method).color, own, _tuned(records[0]), reproduction(records)
    )


def _tuned(record: Record) -> str:
    tuning = record.tuning
    if not tuning:
        return ""
    chosen = (
        ", ".join(f"{name} {plain(value)}" for name, value in tuning["chosen"].items())
        or "none could be judged"
    )
    return f"{len(tuning['trials'])} trials on validation data, {in_seconds(tuning['train_seconds'])} of training; chosen: {chosen}"


def settings(record: Record) -> tuple[tuple[str, str], ...]:
    """The recipe's settings, the engine and the device, as asked for; what was left to default to nothing is left out."""
    asked = {
        **flattened(record.cell["recipe"]),
        "engine": record.cell["engine"],
        "device": record.cell["device"],
    }
    return tuple((name, plain(value)) for name, value in asked.items() if value is not None)


def split(records: Iterable[Record]) -> tuple[Circumstances, dict[str, Circumstances]]:
    """What is the same for all cells that ran, and what of each cell's (by identity) is not."""
    found = {record.identity: _circumstances(record) for record in records if record.environment}
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    values = {name: {one.get(name, NOTHING) for one in found.values()} for name in names}
    common = {name: min(values[name]) for name in names if len(values[name]) == 1}
    return common, {
        identity: {name: value for name, value in one.items() if name not in common}
        for identity, one in found.items()
    }


def _circumstances(record: Record) -> Circumstances:
    """Environment and data, each value as text."""
    all_of_it = {**flattened(record.environment), **flattened(record.data, "data.")}
    return {
        name: plain(value)
        for name, value in all_of_it.items()
        if not name.startswith(NO_CIRCUMSTANCE) and value not in (None, "")
    }


def cells_table(records: Sequence[Record], own: Mapping[str, Circumstances]) -> Table:
    """A row a cell: seed, outcome, figures, when it finished, its record, and what of its circumstances is its own."""
    shown = [
        name for name in IN_CELLS if any(record.metrics.get(name) is not None for record in records)
    ]
    lines = tuple(_cell_line(record, shown, own.get(record.identity, {})) for record in records)
    headings = (
        "Seed",
        "Status",
        *(METRICS[name].title for name in shown),
        "Best epoch",
        "Finished",
        "Record",
        "Of its own",
    )
    return Table(
        "Method", headings, lines, frozenset({"Status", "Finished", "Record", "Of its own"})
    )


def _cell_line(record: Record, shown: Sequence[str], own: Circumstances) -> Line:
    said = [without_home(record.message)] if record.message else []
    said += [f"{name} {value}" for name, value in own.items()]
    items = [Item(str(record.seed), record.seed), Item(record.status, record.status)]
    items += [_figure(record.metrics.get(name), name) for name in shown]
    best = record.best_epoch
    items += [
        Item(NOTHING) if best is None else Item(f"{best} of {len(record.epochs)}", best),
        Item(moment(record.finished), record.finished),
    ]
    items += [Item(record.identity, record.identity), Item("; ".join(said))]
    return Line(title_of(record.method_name), tuple(items), style_of(record.method_name).color)


def _figure(value: float | None, name: str) -> Item:
    return Item(NOTHING) if value is None else Item(METRICS[name].format(value), value)
