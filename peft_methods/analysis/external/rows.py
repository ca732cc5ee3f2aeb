"""Figures of an external table converted into `ResultRow` objects for the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from peft_methods.analysis.checks.device_limits import device_in
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import VERSIONS, ResultRow
from peft_methods.analysis.external.figures import Figures
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.method_words import method_words, targets_of_column
from peft_methods.utils.units import Quantity

# Fields of `ResultRow` that hold one number.
PLAIN_FIELDS = (
    "accuracy", "validation_accuracy", "train_accuracy", "majority", "train_rows",
    "validation_rows", "test_rows", "epochs", "steps_per_epoch", "batch_size", "max_length",
    "learning_rate", "train_seconds", "step_seconds", "samples_per_second", "total_steps", "seed",
    "rank", "virtual_tokens",
)  # fmt: skip
SERIES = ("train_losses", "validation_losses", "validation_accuracies")
TEXTS = ("data", "precision", "device", "task", "bias")


@dataclass(frozen=True)
class TableRow(ResultRow):
    """A row of a table made elsewhere.

    `others`: settings in columns that are unknown, by header.
    """

    others: Mapping[str, str] = field(default_factory=dict)


def rows_of(
    columns: Mapping[str, Figures],
    names: Sequence[str],
    unread: Sequence[Mapping[str, str]] = (),
) -> tuple[ResultRow, ...]:
    """Return a row for each line whose name is not empty; `line` is its place in the table.

    `unread`: the settings of each line in unknown columns, by header.
    """
    found = []
    for place, name in enumerate(names):
        if name:
            values = {field: figures.values[place] for field, figures in columns.items()}
            row = result_row({**values, "method": name}, place)
            row = _completed(row, columns, values, place)
            found.append(replace(row, others=unread[place]) if unread else row)
    return tuple(found)


def _completed(
    row: TableRow, columns: Mapping[str, Figures], values: Mapping[str, Any], place: int
) -> TableRow:
    """Add the other scores, what stands beside a count, and whether memory ran out."""
    counts = columns.get("trainable_parameters")
    share = counts.shares[place] if counts else None
    total = counts.totals[place] if counts else None
    return replace(
        row,
        scores={
            field: values[field].value
            for field, figures in columns.items()
            if figures.column.is_score and values[field] is not None
        },
        trainable_share=row.trainable_share or rounded_count(share),
        total=row.total or rounded_count(total),
        out_of_memory=any(place in figures.memory_ran_out for figures in columns.values()),
    )


def result_row(line: Mapping[str, Any], place: int = 0) -> TableRow:
    """Make one row; `line` maps a column's field to its text, quantity or series."""
    given: dict[str, Any] = {
        name: line[name].value for name in PLAIN_FIELDS if line.get(name) is not None
    }
    given |= {name: _numbers(line.get(name)) for name in SERIES} | {
        name: line.get(name) or None for name in TEXTS
    }
    counts = {
        split: numbers
        for split in ("train", "validation", "test")
        if (numbers := _numbers(line.get(f"{split}_class_counts")))
    }
    if tested := sum(counts.get("test", ())):
        given = {"test_rows": tested, "majority": max(counts["test"]) / tested} | given
    time, most, energy = line.get("train_seconds"), line.get("max_memory"), line.get("energy")
    name = line["method"]
    return TableRow(
        name=name,
        line=place,
        model=line.get("model") or "",
        method=method_of(name),
        class_counts=counts,
        trainable=rounded_count(line.get("trainable_parameters")),
        total=rounded_count(line.get("total_parameters")),
        trainable_share=rounded_count(line.get("trainable_share")),
        rates=_numbers(line.get("learning_rates")),
        ranked=True,
        rounding=_rounding(line.get("validation_accuracy"), line.get("validation_accuracies")),
        loss_rounding=_rounding(None, line.get("validation_losses")),
        train_seconds_deviation=None if time is None else time.spread,
        energy_joules=None if energy is None else energy.value,
        peak_memory=rounded_count(line.get("peak_memory")),
        maximum_memory=None if most is None else most.value,
        versions={package: line[package] for package in VERSIONS if line.get(package)},
        **_named_settings(name, line.get("targets") or "")
        | {field: value for field, value in given.items() if value is not None},
    )


def _named_settings(name: str, targets: str) -> dict[str, Any]:
    """Return the settings that a method's name says, and the targets of a column."""
    words = method_words(name)
    named = {
        "rank": words.rank,
        "virtual_tokens": words.virtual_tokens,
        "bias": words.bias,
        "device": device_in(name),
        "targets": targets_of_column(targets) if targets else words.targets,
    }
    return {field: value for field, value in named.items() if value}


def _rounding(given: Quantity | None, log: Sequence[Quantity] | None) -> float:
    """Return half a step of the last digit, for the coarser of the value and its log.

    A log has as many digits as its longest value.
    """
    return max(
        0.0 if given is None else given.value - given.low,
        min((one.value - one.low for one in log or ()), default=0.0),
    )


def _numbers(series: Sequence[Quantity] | None) -> tuple[float, ...]:
    return tuple(one.value for one in series or ())


def rounded_count(quantity: Quantity | None) -> RoundedCount | None:
    """Convert a quantity to a count that knows its rounding."""
    return (
        None
        if quantity is None
        else RoundedCount(quantity.text, quantity.value, quantity.low, quantity.high)
    )
