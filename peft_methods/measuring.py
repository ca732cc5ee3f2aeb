"""How things are measured: clocks and memory by phase, and parameter counts."""

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
    """A memory counter with a peak that can be started anew. `kind` labels its figures."""

    kind: str

    def reset(self) -> None:
        """Forget the peak so far."""

    def level(self) -> int:
        """Bytes in use now."""

    def peak(self) -> int:
        """The most bytes in use since the last reset."""


class ResidentMemory:
    """This process's resident set. Linux can start the peak anew (/proc/PID/clear_refs); elsewhere it only grows."""

    def __init__(self) -> None:
        self.can_reset = os.access("/proc/self/clear_refs", os.W_OK)
        self.kind = "resident set above its level before the model" + (
            "" if self.can_reset else ", peak never reset"
        )

    def reset(self) -> None:
        """Give back what earlier phases freed, then set the kernel's high-water mark to the present size."""
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        if self.can_reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def level(self) -> int:
        """VmRSS."""
        return _status("VmRSS") if self.can_reset else self.peak()

    def peak(self) -> int:
        """VmHWM, or getrusage's maximum where there is no /proc."""
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
    """Bytes that this process's address space may still grow by (`ulimit -v`); None without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not STATUS.exists():
        return None
    return max(0, limit - _status("VmSize"))


class Gauge(Protocol):
    """Something read at the borders of phases."""

    def start(self) -> None:
        """A phase begins."""

    def read(self) -> float | None:
        """What the phase came to; None where nothing can be known."""


class ReservedMemory:
    """The most bytes torch's allocator held of the device; `CudaMemory.reset` starts it anew."""

    def start(self) -> None:
        """Nothing: both peaks of torch are reset together."""

    def read(self) -> float:
        """torch.cuda.max_memory_reserved."""
        import torch

        return torch.cuda.max_memory_reserved()


class ThreadTime:
    """Seconds that the calling thread had a core. Less than the time that passed: it had to wait for one."""

    def __init__(self) -> None:
        self._from = time.thread_time()

    def start(self) -> None:
        """Count from here."""
        self._from = time.thread_time()

    def read(self) -> float:
        """time.thread_time since `start`."""
        return time.thread_time() - self._from


class CudaMemory:
    """What torch's allocator has handed out on the current device."""

    kind = "allocated by torch on the device"

    def reset(self) -> None:
        """torch.cuda.reset_peak_memory_stats."""
        import torch

        torch.cuda.reset_peak_memory_stats()

    def level(self) -> int:
        """torch.cuda.memory_allocated."""
        import torch

        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """torch.cuda.max_memory_allocated."""
        import torch

        return torch.cuda.max_memory_allocated()


@dataclass(frozen=True)
class Interval:
    """A stretch of time in one phase; `peak_bytes` is above the meter's base level, `readings` are the gauges'."""

    phase: str
    seconds: float
    peak_bytes: int
    readings: dict[str, float | None] = field(default_factory=dict)


class PhaseMeter:
    """Cuts a cell's run into phases without gaps: every moment belongs to one phase, each with its own peak.

    The device is synchronised at the borders only, so nothing is measured into the phase after it.
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
        """Peaks are counted above the level now in use (the process before its model); on a device nothing should be.

        To be called as a phase begins: what was freed earlier is given back by then, and is no room that this one gets for nothing.
        """
        self.level_before = self.memory.level()
        self._base = self.level_before if isinstance(self.memory, ResidentMemory) else 0

    def enter(self, phase: str | None) -> None:
        """End the present phase and begin this one; None ends the last."""
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
        """Total time in the phase."""
        return sum(interval.seconds for interval in self.intervals if interval.phase == phase)

    def seconds_so_far(self, phase: str) -> float:
        """Total time in the phase, the present stretch included: where the host is, the device may be behind."""
        return self.seconds(phase) + (self._clock() - self._since if self.phase == phase else 0.0)

    def peak_so_far(self, *phases: str) -> int:
        """The highest peak of these phases, the present one included."""
        present = max(0, self.memory.peak() - self._base) if self.phase in phases else 0
        return max(present, self.peak(*phases) or 0)

    def peak(self, *phases: str) -> int | None:
        """The highest peak of these phases, bytes; None if none was entered."""
        return max(
            (interval.peak_bytes for interval in self.intervals if interval.phase in phases),
            default=None,
        )

    def highest(self, gauge: str, *phases: str) -> float | None:
        """The highest reading of these phases."""
        return max(self._readings(gauge, phases), default=None)

    def total(self, gauge: str, *phases: str) -> float | None:
        """The sum of a gauge's readings; None if one is missing."""
        found = self._readings(gauge, phases)
        return sum(found) if found else None

    def _readings(self, gauge: str, phases: tuple[str, ...]) -> list[float]:
        found = [
            interval.readings.get(gauge) for interval in self.intervals if interval.phase in phases
        ]
        return [] if None in found else [value for value in found if value is not None]


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable weights of the method and of the head, and all weights of the model."""

    method: int
    head: int
    total: int


def count_parameters(model: nn.Module, head: tuple[str, ...]) -> ParameterCounts:
    """Counts by true size (4-bit ones dequantised); PEFT's frozen copy of the head is not counted twice."""
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
