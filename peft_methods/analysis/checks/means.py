"""The means of one method's seeds as a row of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.runs.record import Record


def mean_row(records: Sequence[Record], seeds: Sequence[ResultRow]) -> ResultRow:
    """Average the figures of one method's seeds, and add the spread of the training time."""
    peaks = [f.peak_memory.value for f in seeds if f.peak_memory]
    return replace(
        seeds[0],
        accuracy=mean_of(seeds, lambda f: f.accuracy),
        score=mean_of(seeds, lambda f: f.score),
        train_seconds=mean_of(seeds, lambda f: f.train_seconds),
        train_seconds_deviation=_deviation(records),
        peak_memory=RoundedCount.exactly(fmean(peaks)) if peaks else None,
        maximum_memory=None,
        validation_accuracies=mean_series([f.validation_accuracies for f in seeds]),
        clock_mhz=mean_of(seeds, lambda f: f.clock_mhz),
        engine_note=next((f.engine_note for f in seeds if f.engine_note), ""),
        fell_back=fmean(f.fell_back for f in seeds),
    )


def mean_of(seeds: Sequence[ResultRow], of: Callable[[ResultRow], Any]) -> float | None:
    """Return the mean of a value over the seeds that have it; None if none has."""
    known = [of(f) for f in seeds if of(f) is not None]
    return fmean(known) if known else None


def mean_series(series: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Average epoch by epoch; empty if seeds ended after different numbers of epochs."""
    return (
        tuple(map(fmean, zip(*series, strict=True)))
        if len({len(one) for one in series}) == 1
        else ()
    )


def _deviation(records: Sequence[Record]) -> float | None:
    """Return the standard deviation of the training time in seconds.

    It is that of the mean time per epoch, times the mean number of epochs. A seed that stopped
    early is therefore not an outlier.
    """
    pairs = [
        (seconds, len(r.epochs))
        for r in records
        if (seconds := r.metrics.get("train_seconds")) is not None and r.epochs
    ]
    if len(pairs) < 2:
        return None
    return stdev(seconds / epochs for seconds, epochs in pairs) * fmean(
        epochs for _, epochs in pairs
    )
