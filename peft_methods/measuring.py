"""What is measured and how: the METRICS table, clocks and memory by phase, and parameter counts."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import nn


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _rate(value: float) -> str:
    return f"{value:,.1f}/s"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.1f} MiB"


@dataclass(frozen=True)
class Metric:
    """One figure of a record: its name ends in its unit; `better` is None where neither direction is."""

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    format: Callable[[float], str]


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "higher", _percent),
        Metric("macro_f1", "Macro F1", "higher", _percent),
        Metric("weighted_f1", "Weighted F1", "higher", _percent),
        Metric("macro_precision", "Macro precision", "higher", _percent),
        Metric("macro_recall", "Macro recall", "higher", _percent),
        Metric("validation_accuracy", "Validation accuracy", "higher", _percent),
        Metric("trainable_parameters", "Trainable", "lower", _count),
        Metric("method_parameters", "Trainable (method)", "lower", _count),
        Metric("head_parameters", "Trainable (head)", None, _count),
        Metric("total_parameters", "All parameters", None, _count),
        Metric("trainable_share", "Trainable share", "lower", _percent),
        Metric("train_seconds", "Train time", "lower", _seconds),
        Metric("samples_per_second", "Samples", "higher", _rate),
        Metric("tokens_per_second", "Tokens", "higher", _rate),
        Metric("peak_memory_bytes", "Peak memory", "lower", _mebibytes),
        Metric("checkpoint_bytes", "Saved weights", "lower", _mebibytes),
        Metric("source_seconds", "Sources' train time", "lower", _seconds),
        Metric("data_seconds", "Reading data", "lower", _seconds),
        Metric("load_seconds", "Loading the model", "lower", _seconds),
        Metric("tokenize_seconds", "Tokenizing", "lower", _seconds),
        Metric("warm_up_seconds", "Warm-up", "lower", _seconds),
        Metric("evaluate_seconds", "Evaluating", "lower", _seconds),
        Metric("save_seconds", "Saving", "lower", _seconds),
        Metric("check_seconds", "Checking weights", "lower", _seconds),
    )
}
PHASES = ("data", "load", "tokenize", "warm_up", "train", "evaluate", "save", "check")


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
        self.kind = "resident set above its level before the model" + ("" if self.can_reset else ", peak never reset")

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
        return self._status("VmRSS") if self.can_reset else self.peak()

    def peak(self) -> int:
        """VmHWM, or getrusage's maximum where there is no /proc."""
        if self.can_reset:
            return self._status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    @staticmethod
    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}")


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
    """A stretch of time in one phase; `peak_bytes` is above the meter's base level."""

    phase: str
    seconds: float
    peak_bytes: int


class PhaseMeter:
    """Cuts a cell's run into phases without gaps: every moment belongs to one phase, each with its own peak.

    The device is synchronised at the borders only, so nothing is measured into the phase after it.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self.memory = memory
        self.intervals: list[Interval] = []
        self._clock, self._synchronize = clock, synchronize
        self._phase: str | None = None
        self._since, self._base = 0.0, 0

    def set_base(self) -> None:
        """Peaks are counted above the level now in use (the process before its model)."""
        self._base = self.memory.level() if isinstance(self.memory, ResidentMemory) else 0

    def enter(self, phase: str | None) -> None:
        """End the present phase and begin this one; None ends the last."""
        self._synchronize()
        now = self._clock()
        if self._phase is not None:
            peak = max(0, self.memory.peak() - self._base)
            self.intervals.append(Interval(self._phase, now - self._since, peak))
        self.memory.reset()
        self._phase, self._since = phase, self._clock()

    def seconds(self, phase: str) -> float:
        """Total time in the phase."""
        return sum(interval.seconds for interval in self.intervals if interval.phase == phase)

    def peak(self, *phases: str) -> int | None:
        """The highest peak of these phases, bytes; None if none was entered."""
        return max((interval.peak_bytes for interval in self.intervals if interval.phase in phases), default=None)


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
