"""Estimates beside what was measured: errors of records, and of many by method and model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.predicted import Prediction
from peft_methods.runs.record import Record

TITLES = {"peak_memory_bytes": "the peak", "train_seconds": "the training time"}
TOO_LOW = 0.02  # share of the measured value: an estimate further below it promises too much


@dataclass(frozen=True)
class EstimateError:
    """A predicted and a measured value of one run, and whether it is in the predicted range."""

    record: Record
    metric: str
    predicted: float
    measured: float
    is_in_range: bool

    @property
    def share(self) -> float:
        """The error as a share of the measured value; above 0, too much was predicted."""
        return self.predicted / self.measured - 1

    @property
    def title(self) -> str:
        """The name of the value in a sentence."""
        return TITLES[self.metric]

    def format(self, value: float) -> str:
        """Format a value of this kind."""
        return METRICS[self.metric].format(value)


def errors_of(record: Record, prediction: Prediction | None = None) -> list[EstimateError]:
    """Return the errors of a record's estimates, or of another `prediction`.

    There are none for a run that did not finish, nor on a CPU, whose memory is not estimated.
    """
    known = prediction or record.predicted
    if known is None or record.status != "ok" or record.spec.device == "cpu":
        return []
    values = {
        "peak_memory_bytes": (
            known.low_memory_bytes,
            known.peak_memory_bytes,
            known.high_memory_bytes,
        ),
        "train_seconds": (known.low_seconds, known.train_seconds, known.high_seconds),
    }
    found = []
    for metric, (low, expected, high) in values.items():
        measured = record.metrics.get(metric)
        if measured and expected is not None and low is not None and high is not None:
            inside = low <= measured <= high
            found.append(EstimateError(record, metric, expected, measured, inside))
    return found


@dataclass(frozen=True)
class ErrorSummary:
    """The absolute errors of several runs, as shares of the measured values.

    `too_low` is the share of runs whose estimate is more than 2 % below the measured value, and
    `in_range` that of those whose measured value is in the predicted range.
    """

    name: str
    count: int
    median: float
    p95: float
    worst: float
    too_low: float
    in_range: float


def summary(name: str, errors: Sequence[EstimateError]) -> ErrorSummary:
    """Summarize errors; there must be some. `worst` keeps its sign."""
    shares = np.array([one.share for one in errors])
    return ErrorSummary(
        name,
        len(errors),
        float(np.median(np.abs(shares))),
        float(np.quantile(np.abs(shares), 0.95)),
        max(map(float, shares), key=abs),
        float(np.mean(shares < -TOO_LOW)),
        float(np.mean([one.is_in_range for one in errors])),
    )


def summaries(errors: Iterable[EstimateError], metric: str) -> list[ErrorSummary]:
    """Return the errors of all runs, then by method, then by model."""
    own = [one for one in errors if one.metric == metric]
    if not own:
        return []
    by: tuple[Callable[[EstimateError], str], ...] = (
        lambda one: "all",
        lambda one: one.record.spec.method.title,
        lambda one: one.record.spec.recipe.model.source.rpartition("/")[2],
    )
    found = []
    for key in by:
        names = dict.fromkeys(map(key, own))
        found += [summary(name, [one for one in own if key(one) == name]) for name in names]
    return found
