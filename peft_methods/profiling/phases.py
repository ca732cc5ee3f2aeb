"""Time and memory by phase, and parameter counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from peft_methods.profiling.memory import Memory, ResidentMemory
from peft_methods.training.registry import ENGINE_PHASES

PHASES = (
    "data",
    "load",
    "tokenize",
    "baseline",
    "warm_up",
    *(phase.name for phase in ENGINE_PHASES),
    "train",
    "evaluate",
    "generate",
    "save",
    "check",
    "infer",
)


class Sensor(Protocol):
    """A sensor that is read at the start and the end of each phase."""

    def start(self) -> None:
        """Begin a phase."""

    def read(self) -> float | None:
        """Return the value for the phase since `start`; None if it is not available."""


class ThreadTime:
    """CPU seconds of the calling thread. Less than wall-clock time if it had to wait for a core."""

    def __init__(self) -> None:
        self._start = time.thread_time()

    def start(self) -> None:
        """Count from here."""
        self._start = time.thread_time()

    def read(self) -> float:
        """Return the CPU seconds since `start`."""
        return time.thread_time() - self._start


@dataclass(frozen=True)
class Interval:
    """An uninterrupted stretch of one phase.

    `peak_bytes` is counted from the meter's base level. `readings` holds the value of each sensor.
    """

    phase: str
    seconds: float
    peak_bytes: int
    readings: dict[str, float | None] = field(default_factory=dict)


class PhaseMeter:
    """Divide a run into phases without gaps, and measure time and peak memory of each.

    The device is synchronised only between phases, so that work of one phase is not measured in the
    next.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        sensors: Mapping[str, Sensor] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self.memory = memory
        self.intervals: list[Interval] = []
        self.phase: str | None = None
        self._sensors = sensors or {}
        self._clock, self._synchronize = clock, synchronize
        self._since, self._base = 0.0, 0
        self.level_before = 0

    def set_base_level(self) -> None:
        """Count peaks from the current level (the process before its model is loaded).

        On a device peaks are counted from zero, since nothing should be in use. Call this as a
        phase begins: memory freed earlier has then been returned to the system, so the phase cannot
        reuse it uncounted.
        """
        self.level_before = self.memory.level()
        self._base = self.level_before if isinstance(self.memory, ResidentMemory) else 0

    def enter(self, phase: str | None) -> None:
        """End the current phase and begin this one. None ends the last phase."""
        self._synchronize()
        now = self._clock()
        if self.phase is not None:
            peak = max(0, self.memory.peak() - self._base)
            readings = {name: sensor.read() for name, sensor in self._sensors.items()}
            self.intervals.append(Interval(self.phase, now - self._since, peak, readings))
        self.memory.reset()
        for sensor in self._sensors.values():
            sensor.start()
        self.phase, self._since = phase, self._clock()

    def forget_peak(self) -> None:
        """Count the current phase's peak from now on, as if nothing had been before."""
        self._synchronize()
        self.memory.reset()

    def seconds(self, phase: str) -> float:
        """Return the total time in the phase."""
        return sum(interval.seconds for interval in self.intervals if interval.phase == phase)

    def seconds_so_far(self, phase: str) -> float:
        """Return the total time in the phase, including the current interval.

        This is host time; the device may lag behind.
        """
        return self.seconds(phase) + (self._clock() - self._since if self.phase == phase else 0.0)

    def peak_so_far(self, *phases: str) -> int:
        """Return the highest peak of these phases in bytes, including the current interval."""
        current = max(0, self.memory.peak() - self._base) if self.phase in phases else 0
        return max(current, self.peak(*phases) or 0)

    def peak(self, *phases: str) -> int | None:
        """Return the highest peak of these phases in bytes; None if none was entered."""
        return max(
            (interval.peak_bytes for interval in self.intervals if interval.phase in phases),
            default=None,
        )

    def highest(self, sensor: str, *phases: str) -> float | None:
        """Return the sensor's highest reading in these phases; None if any is missing."""
        return max(self._readings(sensor, phases), default=None)

    def total(self, sensor: str, *phases: str) -> float | None:
        """Return the sum of the sensor's readings in these phases; None if any is missing."""
        found = self._readings(sensor, phases)
        return sum(found) if found else None

    def _readings(self, sensor: str, phases: tuple[str, ...]) -> list[float]:
        found = [
            interval.readings.get(sensor) for interval in self.intervals if interval.phase in phases
        ]
        return [] if None in found else [value for value in found if value is not None]
