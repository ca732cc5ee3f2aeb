"""Rows of an external table converted into `ResultRow` objects for the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import VERSIONS, ResultRow
from peft_methods.analysis.external.columns import method_of
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.units import Quantity


class TableError(PeftMethodsError):
    """A file that holds no usable table."""


def result_rows(path: Path, columns: Mapping[str, Sequence[Any]]) -> tuple[ResultRow, ...]:
    """Return each row, without architectures."""
    names = columns["method"]
    for number, name in enumerate(names, 1):
        if not name:
            raise TableError(f"{path}: row {number} names no method. Fill in its 'method' column.")
    lines = [{name: values[row] for name, values in columns.items()} for row in range(len(names))]
    return tuple(
        replace(result_row(line), line=place, model=line.get("model") or "")
        for place, line in enumerate(lines)
    )


# Fields of `ResultRow` that hold one number.
PLAIN_FIELDS = (
    "accuracy", "validation_accuracy", "train_accuracy", "majority", "train_rows",
    "validation_rows", "test_rows", "epochs", "steps_per_epoch", "batch_size", "max_length",
    "learning_rate", "train_seconds", "step_seconds",
)  # fmt: skip
SERIES = ("train_losses", "validation_losses", "validation_accuracies")
TEXTS = ("data", "precision", "device")


def result_row(line: Mapping[str, Any]) -> ResultRow:
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
    time, most = line.get("train_seconds"), line.get("max_memory")
    return ResultRow(
        name=line["method"],
        method=method_of(line["method"]),
        class_counts=counts,
        trainable=rounded_count(line.get("trainable_parameters")),
        rates=_numbers(line.get("learning_rates")),
        ranked=True,
        rounding=_rounding(line.get("validation_accuracy"), line.get("validation_accuracies")),
        loss_rounding=_rounding(None, line.get("validation_losses")),
        train_seconds_deviation=None if time is None else time.spread,
        peak_memory=rounded_count(line.get("peak_memory")),
        maximum_memory=None if most is None else most.value,
        versions={package: line[package] for package in VERSIONS if line.get(package)},
        **given,
    )


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
