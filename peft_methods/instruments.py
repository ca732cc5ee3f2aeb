"""Profiling of one run: turns the engine's callbacks into the metrics of its cost."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from peft_methods import nvml
from peft_methods.attribution import PeakTrace
from peft_methods.engines.base import EpochResult, NoTrace, WorstStep
from peft_methods.errors import OutOfMemory, is_out_of_memory
from peft_methods.measuring import (
    CudaMemory,
    Gauge,
    Interval,
    PhaseMeter,
    ReservedMemory,
    ResidentMemory,
    ThreadTime,
    address_space_left,
)
from peft_methods.metrics import MEMORY_PARTS, MEMORY_PHASES

# Phases to restore when a run resumes. Every process that resumes a run repeats the other phases.
RESUMED_PHASES = ("train", "evaluate", "save")
# Seconds between two progress messages about training steps: a reader cannot follow more.
PROGRESS_INTERVAL = 0.25
# The warm-up's last step is on the longest batch, so it belongs to the training peak.
TRAINING = ("warm_up", "train")
# Phases whose matrix products affect the quality metrics.
COMPUTING = (*TRAINING, "evaluate")
# Bytes of address space to keep free. For the widest product of a base model, MKL went without its
# buffer when 8 MiB were left, and had it when 16 MiB were left.
SPARE_ADDRESSES = 32 * 2**20
# Descriptions of phases for messages. Any other phase is training.
PHASE_ACTIVITIES = {
    "data": "reading the data",
    "prepare": "trying the model",
    "load": "loading the model",
    "tokenize": "tokenizing",
    "capture": "capturing the training step",
    "evaluate": "evaluating",
    "save": "saving",
    "check": "comparing weights",
    "infer": "timing inference",
}


@dataclass(frozen=True)
class OomAdvice:
    """Advice for a phase that ran out of memory. `setting` is the setting to change."""

    text: str
    setting: str


_FEWER_ROWS = OomAdvice("Use fewer rows: set data.train = N.", "data.train")
_SMALLER_MODEL = OomAdvice(
    "Use a smaller model, or a machine with more free memory.", "model.source"
)
OOM_ADVICE = {
    "data": _FEWER_ROWS,
    "tokenize": _FEWER_ROWS,
    "prepare": OomAdvice(
        "Use a smaller model, smaller batches (set budget.batch_size = N) or a lower "
        "data.max_length.",
        "budget.batch_size",
    ),
    "load": OomAdvice(
        "The weights alone do not fit: use the method qlora, or a smaller model.", "model.source"
    ),
    "capture": OomAdvice('The trainer engine needs less memory: set engine = "trainer".', "engine"),
    "evaluate": OomAdvice(
        "Use smaller evaluation batches: set budget.evaluation_batch_size = 8.",
        "budget.evaluation_batch_size",
    ),
    "save": _SMALLER_MODEL,
    "check": _SMALLER_MODEL,
    "infer": OomAdvice("Use a lower data.max_length, or a smaller model.", "data.max_length"),
}
TRAINING_OOM_ADVICE = OomAdvice(
    "Use half the batch (set budget.batch_size = N with budget.gradient_accumulation = 2 for the "
    "same optimizer step), budget.gradient_checkpointing = true, a lower data.max_length, or the "
    "method qlora.",
    "budget.batch_size",
)


def out_of_memory_error(error: Exception, phase: str, *, cuda: bool) -> OutOfMemory:
    """Return an `OutOfMemory` with the phase, the free GPU memory, the cause and what to change."""
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    free_memory = ""
    if cuda:
        free, total = torch.cuda.mem_get_info()
        free_memory = f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB were free)"
    advice = OOM_ADVICE.get(phase, TRAINING_OOM_ADVICE)
    activity = PHASE_ACTIVITIES.get(phase, "training")
    return OutOfMemory(
        f"out of memory while {activity}{free_memory}: {cause} {advice.text}",
        setting=advice.setting,
    )


def _check_address_space() -> None:
    """Raise `OutOfMemory` if matrix products may have lacked memory without an error.

    If MKL cannot allocate its buffers, it silently uses a different kernel, and all results differ
    in their last bits.
    """
    left = address_space_left()
    if left is not None and left < SPARE_ADDRESSES:
        raise OutOfMemory(
            f"{left / 2**20:.1f} MiB were left of the address space limit (ulimit -v). With so "
            f"little memory, matrix products may differ in their last bits. Raise the limit."
        )


class _DeviceMonitor:
    """Sensors of the device, and the GPU's state before and after a run.

    Create it before this process uses CUDA: the memory in use is read first.
    """

    def __init__(self, *, cuda: bool) -> None:
        self._gpu: nvml.Gpu | None = None
        self._memory: nvml.DeviceMemory | None = None
        self.gauges: dict[str, Gauge] = self._gpu_gauges() if cuda else {"busy": ThreadTime()}
        self._state_before = self._gpu.state() if self._gpu else None

    def _gpu_gauges(self) -> dict[str, Gauge]:
        used_at_start = nvml.used_bytes_by_uuid()
        gauges: dict[str, Gauge] = {"reserved": ReservedMemory()}
        self._gpu = nvml.Gpu.current()
        if self._gpu is not None:
            self._memory = nvml.DeviceMemory(
                self._gpu, level_at_start=used_at_start.get(self._gpu.uuid)
            )
            gauges |= {
                "device": self._memory,
                "energy": nvml.Energy(self._gpu),
                "heat": nvml.Throttling(self._gpu),
            }
        return gauges

    def sampling(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that samples device memory in the background, if possible."""
        return self._memory.sampling() if self._memory else contextlib.nullcontext()

    def environment(self) -> dict[str, Any]:
        """Return the meaning of device memory values, and the GPU's state before and after."""
        return {
            "device_memory_kind": self._memory.kind if self._memory else None,
            "gpu": {"before": self._state_before, "after": self._gpu.state()}
            if self._gpu
            else None,
        }


class _MemoryPeaks:
    """Peak memory of a method, kept apart from the memory that the engine needs for captured steps.

    `parts` is the breakdown of the peak step. `engine_tensors` are tensors that the engine keeps
    on the device; they are referenced here to the end, so they can be subtracted from every later
    peak, even after the engine is gone.
    """

    def __init__(self, meter: PhaseMeter) -> None:
        self._meter = meter
        self.parts: dict[str, int] = {}
        self.engine_tensors: Sequence[torch.Tensor] = ()

    def has_captured_steps(self) -> bool:
        """Whether the engine has captured training steps."""
        return self._meter.peak("capture") is not None

    def training_phases(self) -> tuple[str, ...]:
        """Return the phases whose peak is the method's training peak.

        With captured steps it is only the warm-up before the capture: replayed steps hold the
        engine's memory.
        """
        return ("warm_up",) if self.has_captured_steps() else TRAINING

    def metrics(self) -> dict[str, float | None]:
        """Return all memory metrics; None for those that this device does not have."""
        phases = {"load": ("load",), "train": TRAINING, "evaluate": ("evaluate",)}
        method_phases = {**phases, "train": self.training_phases()}
        meter = self._meter
        found: dict[str, float | None] = {}
        for phase in MEMORY_PHASES:
            found[f"{phase}_allocated_bytes"] = meter.peak(*method_phases[phase])
            found[f"{phase}_reserved_bytes"] = meter.highest("reserved", *method_phases[phase])
            found[f"{phase}_device_bytes"] = meter.highest("device", *phases[phase])
        if found["evaluate_allocated_bytes"] is not None:
            found["evaluate_allocated_bytes"] -= sum(t.nbytes for t in self.engine_tensors)
        found["engine_reserved_bytes"] = (
            meter.highest("reserved", "capture", "train") if self.has_captured_steps() else None
        )
        peak = found["peak_memory_bytes"] = found["train_allocated_bytes"]
        parts = self.parts
        if parts and peak is not None:
            parts = {**parts, "unattributed": int(peak) - sum(parts.values())}
        return found | {f"{part}_bytes": parts.get(part) for part in MEMORY_PARTS}


class _ProgressReporter:
    """Sends progress messages of a run. All values are known on the host: nothing synchronises."""

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        epochs: int,
        meter: PhaseMeter,
        memory: _MemoryPeaks,
    ) -> None:
        self._send, self._epochs, self._meter, self._memory = send, epochs, meter, memory
        self.rows = 0  # of an epoch
        self._step, self._steps = 0, 0  # steps done, and steps in all
        self._last_sent = 0.0  # when the last message about a step was sent

    def enter(self, phase: str | None) -> None:
        """Report what the phase does. Training reports its steps instead."""
        if phase in PHASE_ACTIVITIES:
            self._send({"doing": PHASE_ACTIVITIES[phase]})

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Report a training step, at most once per PROGRESS_INTERVAL."""
        self._step, self._steps = step, steps
        now = time.monotonic()
        if now - self._last_sent >= PROGRESS_INTERVAL:
            self._last_sent = now
            self._send({"epoch": epoch, **self._values()})

    def epoch(self, result: EpochResult) -> None:
        """Report the results of an epoch."""
        self._send({**asdict(result), **self._values()})

    def _values(self) -> dict[str, Any]:
        """Return the steps done, the training speed and the peak memory so far."""
        step, steps = self._step, self._steps
        seconds = self._meter.seconds_so_far("train")
        return {
            "epochs": self._epochs,
            "step": step,
            "steps": steps,
            "train_seconds": seconds,
            "samples_per_second": self.rows * self._epochs * step / steps / seconds
            if steps and seconds
            else None,
            "peak_memory_bytes": self._meter.peak_so_far(*self._memory.training_phases()),
        }


class Instruments:
    """Profiler of a run: implements the engine's callbacks and collects all metrics of its cost.

    On a GPU it reads torch's allocator, CUDA events and NVML; on a CPU a clock and the resident
    set size. `progress` receives messages during training.
    """

    def __init__(
        self, device: str, progress: Callable[[dict[str, Any]], None], epochs: int
    ) -> None:
        self.cuda = device.startswith("cuda")
        self._device = _DeviceMonitor(cuda=self.cuda)
        self.meter = PhaseMeter(
            CudaMemory() if self.cuda else ResidentMemory(),
            gauges=self._device.gauges,
            synchronize=self.synchronize,
        )
        self._steps = _CudaSteps() if self.cuda else _HostSteps()
        self._memory = _MemoryPeaks(self.meter)
        self._progress = _ProgressReporter(progress, epochs, self.meter, self._memory)
        self._training_began: float | None = None  # Unix time
        self._training_ended: float | None = None

    @property
    def rows(self) -> int:
        """The rows of an epoch, for the speed in progress messages. 0 until they are known."""
        return self._progress.rows

    @rows.setter
    def rows(self, rows: int) -> None:
        self._progress.rows = rows

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Context manager: sample in the background, and convert memory errors to `OutOfMemory`."""
        try:
            with self._device.sampling():
                yield
        except Exception as error:
            if is_out_of_memory(error):
                phase = self.meter.phase or ""
                raise out_of_memory_error(error, phase, cuda=self.cuda) from error
            raise

    def enter(self, phase: str | None) -> None:
        """End the current phase and begin this one. None ends the last phase."""
        if self.meter.phase == "train":
            self._training_ended = time.time()
        if self.meter.phase in COMPUTING and not self.cuda:
            _check_address_space()
        self.meter.enter(phase)
        self._progress.enter(phase)
        if phase == "train":
            self._training_began = self._training_began or time.time()
            self._steps.begin()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Record that a training step was launched."""
        self._steps.end_of_step()
        self._progress.step(epoch, step, steps)

    def epoch(self, result: EpochResult) -> None:
        """Report an epoch that was trained and evaluated."""
        self._progress.epoch(result)

    def methods_peak(self, training: Interval) -> int | None:
        """Return the method's peak bytes in an interval of training.

        None if steps were captured: replayed steps hold the engine's memory.
        """
        return None if self._memory.has_captured_steps() else training.peak_bytes

    def measured(self) -> dict[str, Any]:
        """Return the measurements of the epochs so far, as JSON values.

        The phase in progress is not included.
        """
        intervals = [
            asdict(interval)
            for interval in self.meter.intervals
            if interval.phase in RESUMED_PHASES
        ]
        return {
            "intervals": intervals,
            "steps": self._steps.seconds(),
            "trained_from": self._training_began,
        }

    def take_over(self, measured: dict[str, Any]) -> None:
        """Prepend the measurements of the process that trained the first epochs."""
        self.meter.intervals[:0] = [Interval(**interval) for interval in measured["intervals"]]
        self._steps.earlier = measured["steps"]
        self._training_began = measured["trained_from"]

    def engine_keeps(self, tensors: Sequence[torch.Tensor]) -> None:
        """Record tensors that the engine keeps on the device. The method alone does not need them.

        They are kept alive to the end, so that every later peak includes them and they can be
        subtracted, even after the engine is gone.
        """
        self._memory.engine_tensors = tensors

    @contextlib.contextmanager
    def worst_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[WorstStep]:
        """Context manager around the peak step: break down its memory peak (GPU only)."""
        if not self.cuda:
            yield NoTrace()
            return
        with PeakTrace(model, optimizer) as trace:
            yield trace
        self._memory.parts = trace.parts  # not the trace: it references the optimizer

    def metrics(self) -> dict[str, float | None]:
        """Return all measured metrics by their names in METRICS.

        Metrics that this device does not have are None.
        """
        meter, steps = self.meter, self._steps.seconds()
        return {
            "step_median_seconds": float(np.median(steps)) if steps else None,
            "step_p95_seconds": float(np.quantile(steps, 0.95)) if steps else None,
            "energy_joules": meter.total("energy", "train"),
            "thermal_slowdown_seconds": meter.total("heat", "train"),
            "busy_share": _share(meter.total("busy", "train"), meter.seconds("train")),
            **self._memory.metrics(),
        }

    def environment(self) -> dict[str, Any]:
        """Return the meaning of memory values, the GPU's state and the time of training.

        `trained_between` holds the Unix time of the first and the last training step.
        """
        return {
            "memory_kind": self.meter.memory.kind,
            "memory_before_bytes": self.meter.level_before if self.cuda else None,
            **self._device.environment(),
            "trained_between": [self._training_began, self._training_ended],
        }


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else part / whole


class _HostSteps:
    """Seconds between the ends of successive training steps, by the host's clock.

    `earlier` holds the seconds measured by the process that trained the first epochs.
    """

    def __init__(self) -> None:
        self.earlier: list[float] = []
        self._seconds: list[float] = []
        self._last = 0.0

    def begin(self) -> None:
        self._last = time.perf_counter()

    def end_of_step(self) -> None:
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now

    def seconds(self) -> list[float]:
        return self.earlier + self._seconds


class _CudaSteps:
    """Seconds between the ends of successive training steps, by CUDA events.

    Recording an event takes microseconds and does not synchronise. The events are read at the end.
    """

    def __init__(self) -> None:
        self.earlier: list[float] = []
        self._intervals: list[list[torch.cuda.Event]] = []

    def begin(self) -> None:
        self._intervals.append([])
        self.end_of_step()

    def end_of_step(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._intervals[-1].append(event)

    def seconds(self) -> list[float]:
        torch.cuda.synchronize()
        return self.earlier + [
            a.elapsed_time(b) / 1000
            for events in self._intervals
            for a, b in itertools.pairwise(events)
        ]
