"""Time and memory by phase, and parameter counts."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


STATUS = Path("/proc/self/status")
PHASES = (
    "data",
    "load",
    "tokenize",
    "warm_up",
    "capture",
    "train",
    "evaluate",
    "save",
    "check",
    "infer",
)


class Memory(Protocol):
    """A memory counter whose peak can be reset. `kind` describes its values."""

    kind: str

    def reset(self) -> None:
        """Reset the peak to the current level."""

    def level(self) -> int:
        """Return the bytes in use now."""

    def peak(self) -> int:
        """Return the most bytes in use since the last reset."""


class ResidentMemory:
    """Resident set size of this process.

    Linux can reset the peak (/proc/PID/clear_refs). On other systems the peak only grows.
    """

    def __init__(self) -> None:
        self.can_reset = os.access("/proc/self/clear_refs", os.W_OK)
        self.kind = "resident set above its level before the model" + (
            "" if self.can_reset else ", peak never reset"
        )

    def reset(self) -> None:
        """Return memory freed in earlier phases to the system, then reset the kernel's peak."""
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        if self.can_reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def level(self) -> int:
        """Return VmRSS, or the peak if it cannot be reset."""
        return _status("VmRSS") if self.can_reset else self.peak()

    def peak(self) -> int:
        """Return VmHWM, or getrusage's maximum on systems without /proc."""
        if self.can_reset:
            return _status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def _status(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {field}")


def address_space_left() -> int | None:
    """Return the bytes left of this process's address space limit (`ulimit -v`), None if unlimited.

    Also None on systems without /proc.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not STATUS.exists():
        return None
    return max(0, limit - _status("VmSize"))


class Gauge(Protocol):
    """A sensor that is read at the start and the end of each phase."""

    def start(self) -> None:
        """Begin a phase."""

    def read(self) -> float | None:
        """Return the value for the phase since `start`; None if it is not available."""


class ReservedMemory:
    """Peak device memory reserved by torch's allocator. `CudaMemory.reset` resets the peak."""

    def start(self) -> None:
        """Do nothing: torch resets its peaks of allocated and reserved memory together."""

    def read(self) -> float:
        """Return torch.cuda.max_memory_reserved()."""
        import torch

        return torch.cuda.max_memory_reserved()


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


class CudaMemory:
    """Memory allocated by torch on the current device."""

    kind = "allocated by torch on the device"

    def reset(self) -> None:
        """Reset torch's peak statistics."""
        import torch

        torch.cuda.reset_peak_memory_stats()

    def level(self) -> int:
        """Return torch.cuda.memory_allocated()."""
        import torch

        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """Return torch.cuda.max_memory_allocated()."""
        import torch

        return torch.cuda.max_memory_allocated()


@dataclass(frozen=True)
class Interval:
    """An uninterrupted stretch of one phase.

    `peak_bytes` is counted from the meter's base level. `readings` holds the value of each gauge.
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
        gauges: Mapping[str, Gauge] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self.memory = memory
        self.intervals: list[Interval] = []
        self.phase: str | None = None
        self._gauges = gauges or {}
        self._clock, self._synchronize = clock, synchronize
        self._since, self._base = 0.0, 0
        self.level_before = 0

    def set_base(self) -> None:
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
            readings = {name: gauge.read() for name, gauge in self._gauges.items()}
            self.intervals.append(Interval(self.phase, now - self._since, peak, readings))
        self.memory.reset()
        for gauge in self._gauges.values():
            gauge.start()
        self.phase, self._since = phase, self._clock()

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

    def highest(self, gauge: str, *phases: str) -> float | None:
        """Return the gauge's highest reading in these phases; None if any is missing."""
        return max(self._readings(gauge, phases), default=None)

    def total(self, gauge: str, *phases: str) -> float | None:
        """Return the sum of the gauge's readings in these phases; None if any is missing."""
        found = self._readings(gauge, phases)
        return sum(found) if found else None

    def _readings(self, gauge: str, phases: tuple[str, ...]) -> list[float]:
        found = [
            interval.readings.get(gauge) for interval in self.intervals if interval.phase in phases
        ]
        return [] if None in found else [value for value in found if value is not None]


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable parameters of the method and of the head, and all parameters of the model."""

    method: int
    head: int
    total: int


def count_parameters(model: nn.Module, head: tuple[str, ...]) -> ParameterCounts:
    """Count parameters at their full size: 4-bit parameters as if dequantised.

    PEFT's frozen copy of the head is not counted.
    """
    from peft_methods.models import in_modules, size_of

    method = trained_head = total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        size = size_of(parameter)
        total += size
        if parameter.requires_grad:
            in_head = in_modules(name, head)
            trained_head += size * in_head
            method += size * (not in_head)
    return ParameterCounts(method, trained_head, total)
