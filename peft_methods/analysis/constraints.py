"""Upper limits on memory and time: `memory=8GB,time=10min`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record, Status
from peft_methods.utils.errors import OptionError, unknown

MEMORY_UNITS: dict[str, float] = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
TIME_UNITS: dict[str, float] = {"s": 1, "min": 60, "h": 3600}
UNITS = {"memory": MEMORY_UNITS, "time": TIME_UNITS}
METRIC_OF = {"memory": "peak_memory_bytes", "time": "train_seconds"}
# Runs that ended at a limit need more than any budget: memory does not last under either limit.
ENDED_AT_LIMIT: Mapping[str, Mapping[Status, str]] = {
    "memory": {"oom": "ran out of memory"},
    "time": {"oom": "ran out of memory", "timeout": "ended at the time limit of a run"},
}


@dataclass(frozen=True)
class Constraint:
    """Upper limit of a metric, as written ("8GB") and in base units (bytes, seconds)."""

    written: str
    most: float


Constraints = dict[str, Constraint]  # keys "memory" and "time", both optional


def parse_constraints(text: str, setting: str = "budget") -> Constraints:
    """Parse 'memory=8GB,time=10min', the value of a setting. Raises `OptionError`."""
    limits: Constraints = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise OptionError(
                f"{setting} {part.strip()!r} must have the form NAME=VALUE, "
                "for example memory=8GB,time=10min.",
                setting=setting,
            )
        if name not in UNITS:
            raise OptionError(f"{setting}: {unknown('limit', name, UNITS)}", setting=setting)
        if name in limits:
            text = f"{setting} has two limits for {name}; give only one."
            raise OptionError(text, setting=setting)
        limits[name] = Constraint(value, _quantity(name, value, setting))
    return limits


def _quantity(name: str, text: str, setting: str) -> float:
    """Parse '8GB' as 8e9. Units are accepted in any case."""
    units = {unit.lower(): factor for unit, factor in UNITS[name].items()}
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)", text, re.ASCII)
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        example = "8GB" if name == "memory" else "10min"
        raise OptionError(
            f"{setting} {name}={text!r} must be a number above 0 with a unit, "
            f"for example {example}. Units: {', '.join(UNITS[name])}.",
            setting=setting,
        )
    return float(match[1]) * units[match[2].lower()]


def reason_beyond(records: Sequence[Record], limits: Constraints) -> str:
    """Return why a method is not within the limits: its first seed that is not; '' if all are.

    `records` are those of all its seeds. A seed that ran out of memory, or of time if time is
    limited, needs more than was there. A finished seed without the measurement does not fit either.
    Seeds that failed for another reason show nothing about cost.
    """
    for name, limit in limits.items():
        for record in records:
            if reason := _reason(record, name, limit):
                return f"seed {record.seed} {reason}"
    return ""


def _reason(record: Record, name: str, limit: Constraint) -> str:
    """Return why one seed is not within a limit; '' if it is, or if nothing is known about it."""
    if ended := ENDED_AT_LIMIT[name].get(record.status):
        return ended
    if record.status != "ok":
        return ""
    metric = METRICS[METRIC_OF[name]]
    value = record.metrics.get(metric.name)
    if value is None:
        return f"has no measured {name}"
    return "" if value <= limit.most else f"took {metric.format(value)}"
