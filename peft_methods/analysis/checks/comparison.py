"""V5xx: mistakes in the comparison of methods."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from peft_methods.analysis.checks.names import device_name, precision_name, version_name
from peft_methods.analysis.checks.row import VERSIONS, ResultRow
from peft_methods.analysis.checks.rule import is_quantized, rule
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.variation import USUAL
from peft_methods.runs.record import Record
from peft_methods.utils.words import seeds_of

LEAST_RATIO = 2.0  # of a method's learning rate to that of full fine-tuning


@rule("V501", "note", "method")
def no_quality_to_compare(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Weights, and perhaps texts, are random: only costs can be compared."""
    recipe, data = records[0].spec.recipe, records[0].data
    if recipe.has_quality:
        return
    what, advice = (
        "weights are random",
        "compare time, memory and parameters; to compare quality, train pretrained weights",
    )
    if data.get("random") and recipe.data.token_lengths:
        what = "weights and texts are random (row lengths are those of data.token_lengths)"
    elif data.get("random"):
        length = recipe.data.max_length
        what = f"weights and texts are random (every row has the maximum of {length} tokens)"
        advice += "; set data.token_lengths to measure the cost of shorter texts"
    yield f"{what}, so there is no quality to compare", advice


def _deviations(
    rows: Sequence[ResultRow], of: Callable[[ResultRow], Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (names, their value, the usual value) for each value that is not the most common one.

    Of equally common values, the first in the table counts as the usual one.
    """
    known = [row for row in rows if of(row) is not None]
    counted = Counter(of(row) for row in known)
    if len(counted) < 2:
        return
    usual = counted.most_common(1)[0][0]
    for value in counted:
        if value != usual:
            yield ", ".join(row.name for row in known if of(row) == value), value, usual


BUDGET: dict[str, Callable[[ResultRow], float | None]] = {
    "epochs": lambda row: row.epochs,
    "steps per epoch": lambda row: row.steps_per_epoch,
    "train rows": lambda row: row.train_rows,
    "rows per batch": lambda row: row.batch_size,
    "maximum tokens": lambda row: row.max_length,
}


@rule(
    "V502",
    "warning",
    "comparison",
    evidence=tuple(f"… {what}, the others …" for what in BUDGET),
    needs=(
        "epochs",
        "steps_per_epoch",
        "train_rows",
        "batch_size",
        "max_length",
    ),
)
def budgets_differ(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """Methods had different budgets: epochs, steps, rows, batch size or length."""
    for what, of in BUDGET.items():
        for names, value, usual in _deviations(rows, of):
            yield (
                names,
                f"{value:,.0f} {what}, the others {usual:,.0f}",
                "give every method the same budget",
            )


@rule(
    "V503",
    "warning",
    "comparison",
    evidence=("data …, the others' …", "test rows …, the others' …"),
    needs=(
        "data",
        "test_rows",
    ),
)
def data_differ(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """Methods were trained or tested on different data, or on different splits of it."""
    for what, of in {
        "data": lambda row: row.data and row.data.casefold(),
        "test rows": lambda row: row.test_rows,
    }.items():
        for names, value, usual in _deviations(rows, of):
            yield (
                names,
                f"{what} {_short(value)}, the others' {_short(usual)}",
                "compare on the same rows",
            )


@rule("V507", "warning", "method", evidence=("… the same for all seeds",))
def seeds_leave_parts_out(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Seeds do not vary all usual random parts, so their spread is too small."""
    vary = records[0].spec.recipe.budget.vary
    fixed = [part.replace("_", " ") for part in USUAL if part not in vary]
    if fixed and len(records) > 1:
        yield (
            f"{', '.join(fixed)}: the same for all seeds",
            "use these seeds to measure the noise of the other parts; to tell methods apart, let "
            "seeds vary at least the parts that budget.vary has by default",
        )


@rule("V508", "warning", "method")
def seeds_on_other_devices(records: list[Record]) -> Iterator[tuple[str, str]]:
    """Seeds of a method ran on different devices, whose times and memory cannot be averaged."""
    seeds: dict[str, list[int]] = {}
    for record in records:
        if (name := record.environment.get("device_name")) is not None:
            seeds.setdefault(str(name), []).append(record.seed)
    if len(seeds) > 1:
        usual = max(seeds, key=lambda name: len(seeds[name]))
        others = "; ".join(f"{seeds_of(of)} on {one}" for one, of in seeds.items() if one != usual)
        yield (
            f"{others}, the others on {usual}: time and memory are those of {usual} alone",
            "train all seeds on devices of one kind",
        )


def _short(value: str | float) -> str:
    return value[:12] if isinstance(value, str) else f"{value:,.0f}"


@rule("V504", "warning", "comparison", needs=("learning_rate method",))
def one_rate_for_all(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """Methods with few parameters used about full fine-tuning's learning rate, which is too low.

    That is less than twice full fine-tuning's rate, if it was not chosen by tuning. Published rates
    are 2.5 times full's and more: AdapterFusion 2.5, adapters 5, LoRA 10 to 50, IA3 hundreds.
    """
    full = next((row.learning_rate for row in rows if row.method == METHODS.reference), None)
    same: dict[float, list[str]] = {}
    for row in rows:
        rate = row.learning_rate
        if full and rate is not None and rate < LEAST_RATIO * full and not _trains_all(row):
            same.setdefault(rate, []).extend([] if _is_tuned(row) else [row.name])
    for rate, names in same.items():
        ratio = "" if rate == full else f"{rate / full:.2g} times " if full else ""
        if names:
            yield (
                ", ".join(names),
                f"learning rate {rate:g}, {ratio}that of full fine-tuning",
                "tune each method's learning rate; ten to a hundred times full's rate is usual",
            )


def _trains_all(row: ResultRow) -> bool:
    info = METHODS.info(row.method)
    return info is not None and info.scope == "all"


def _is_tuned(row: ResultRow) -> bool:
    """Whether the rate was chosen from the row's own grid, with lower and higher rates tried."""
    return row.learning_rate is not None and min(
        row.rates, default=math.inf
    ) < row.learning_rate < max(row.rates)


@rule(
    "V505",
    "warning",
    "comparison",
    evidence=tuple(f"{what} …, the others' …" for what in ("device", "precision", *VERSIONS)),
    needs=(
        "device",
        "precision",
        "versions",
    ),
)
def settings_differ(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """Methods ran with different library versions, precisions or devices.

    Different names of one precision, device or version count as equal.
    """
    settings: dict[str, Callable[[ResultRow], str | None]] = {
        "device": lambda row: device_name(row.device),
        "precision": lambda row: precision_name(row.precision, is_quantized(row.method)),
    }
    settings |= {package: partial(_version, package) for package in VERSIONS}
    for what, of in settings.items():
        for names, value, usual in _deviations(rows, of):
            yield (
                names,
                f"{what} {value}, the others' {usual}",
                "run all methods in one environment",
            )


def _version(package: str, row: ResultRow) -> str | None:
    return version_name(row.versions.get(package))
