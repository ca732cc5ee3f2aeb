"""What an estimate says: intervals, the parts of the memory peak, and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Basis = Literal["probe", "datasheet", "records"]


@dataclass(frozen=True)
class Interval:
    """An expected value, and the range that holds the measured one in 95 % of runs."""

    low: float
    expected: float
    high: float

    def __contains__(self, measured: float) -> bool:
        return self.low <= measured <= self.high


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a run on a GPU, in bytes.

    `phases` has the allocated peaks of "load", "train" and "evaluate". `parts` sum to that of
    "train": weights, gradients, optimizer_state, activations, workspace, rounding. `reserved` is
    what torch takes from the driver, and `device` that with the CUDA context and the libraries.
    """

    phases: Mapping[str, int]
    parts: Mapping[str, int]
    allocated: Interval
    reserved: Interval
    device: Interval

    @property
    def peak(self) -> int:
        """The allocated peak of training, which records call `peak_memory_bytes`."""
        return self.phases["train"]


@dataclass(frozen=True)
class TimeEstimate:
    """Time and energy of a run. Seconds are those of training alone, without evaluations.

    `basis` says where the device's rates come from. `energy` is in joules, None where unknown.
    """

    step_seconds: Interval
    epoch_seconds: Interval
    train_seconds: Interval
    energy: Interval | None
    basis: Basis


@dataclass(frozen=True)
class MethodEstimate:
    """The estimate for one method: sizes in parameters and bytes, memory and time.

    `time` is None for a device whose rates are unknown. `problem` says why there is no estimate;
    everything else is then None or 0.
    """

    method: str
    title: str
    batch_size: int
    length: int
    trainable: int = 0
    total: int = 0
    checkpoint_bytes: int = 0
    memory: MemoryEstimate | None = None
    time: TimeEstimate | None = None
    problem: str = ""
    notes: tuple[str, ...] = field(default=())
