"""What a record says of the process of its run, in its environment under `isolation`.

`process` is WARM or FRESH, `runs_before` the number of runs that the process had done before, and
`left_behind` what the run has changed there. `repeated`: a run of the session was repeated in a
fresh process (`run`), with these `differences`, or could not be repeated (`failure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peft_methods.runs.record import Record

ISOLATION, REPEATED = "isolation", "repeated"


def isolation_of(record: Record) -> Mapping[str, Any]:
    """Return what a record says of its process; empty for one of an earlier version."""
    found: Mapping[str, Any] = record.environment.get(ISOLATION) or {}
    return found


def was_warm(record: Record) -> bool:
    """Whether the process of a record's run had done other runs before."""
    return bool(isolation_of(record).get("runs_before"))


def differs_when_fresh(record: Record) -> bool:
    """Whether a run of the record's session gave other results in a fresh process."""
    return bool(isolation_of(record).get(REPEATED, {}).get("differences"))


def with_repeat(record: Record, outcome: Mapping[str, Any]) -> Record:
    """Return a record with the outcome of the repeat."""
    isolation = {**isolation_of(record), REPEATED: dict(outcome)}
    return replace(record, environment={**record.environment, ISOLATION: isolation})
