"""What is predicted for a run, blind to what it measured, and the limits that it can exceed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peft_methods.utils.units import format_bytes, format_duration

MEMORY, TIME = "memory", "time"  # names of limits
BEFORE, AFTER = "before the run", "after the run"  # when a prediction was made
SEVERAL_GPUS = "runs over several GPUs are not estimated"


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of a run: its allocated peak, what its GPU must have, training seconds.

    The peak and the seconds have the range meant to hold the measured value in 95 % of runs. What
    is unknown is None. `made` is BEFORE or AFTER: what a run measured is no input in either case.
    `reason` says why nothing is known of a run, '' otherwise.
    """

    peak_memory_bytes: float | None = None
    low_memory_bytes: float | None = None
    high_memory_bytes: float | None = None
    needed_bytes: float | None = None
    train_seconds: float | None = None
    low_seconds: float | None = None
    high_seconds: float | None = None
    basis: str = ""
    made: str = BEFORE
    reason: str = ""


def quoted_in_advice(prediction: Prediction) -> str:
    """Return what was predicted, for the message of a run that ran out of memory."""
    peak, needed = prediction.peak_memory_bytes, prediction.needed_bytes
    if peak is None or needed is None:
        return ""
    return (
        f"The estimate before the run was a peak of {format_bytes(peak)}: by estimate it needs a "
        f"GPU with at least {format_bytes(needed)}."
    )


@dataclass(frozen=True)
class Limit:
    """An upper limit as written ("16GB") and in bytes or seconds."""

    written: str
    most: float


Limits = Mapping[str, Limit]  # keys MEMORY and TIME, both optional


def reason_to_leave_out(prediction: Prediction, limits: Limits, seconds: float | None) -> str:
    """Return why a run would exceed a limit, with the figure; '' if it would not.

    `seconds` is the expected time where the prediction has none.
    """
    memory, most = limits.get(MEMORY), limits.get(TIME)
    needed = prediction.needed_bytes
    if memory is not None and needed is not None and needed > memory.most:
        return (
            f"it needs a GPU with {format_bytes(needed)} by the estimate, more than "
            f"memory={memory.written}"
        )
    time = prediction.train_seconds if prediction.train_seconds is not None else seconds
    if most is not None and time is not None and time > most.most:
        return (
            f"it takes about {format_duration(time)} by the estimate, more than time={most.written}"
        )
    return ""
