"""Profiling of one run: turns the engine's callbacks into the metrics of its cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from peft_methods.profiling.device_monitor import DeviceMonitor
from peft_methods.profiling.memory import CudaMemory, ResidentMemory
from peft_methods.profiling.memory_peaks import TRAINING, MemoryPeaks, share
from peft_methods.profiling.oom_advice import (
    PHASE_ACTIVITIES,
    check_address_space,
    out_of_memory_error,
)
from peft_methods.profiling.peak_memory import PeakTrace
from peft_methods.profiling.phases import Interval, PhaseMeter
from peft_methods.profiling.rank_metrics import environment_of_ranks, of_all_ranks
from peft_methods.profiling.step_clock import CudaSteps, HostSteps
from peft_methods.training.engine import EpochResult, NoTrace, PeakStep
from peft_methods.utils.errors import is_out_of_memory

# Phases to restore when a run resumes. Every process that resumes a run repeats the other phases.
RESUMED_PHASES = ("train", "evaluate", "save")
# Seconds between two progress messages about training steps: a reader cannot follow more.
PROGRESS_INTERVAL = 0.25
# Phases whose matrix products affect the quality metrics.
COMPUTING = (*TRAINING, "baseline", "evaluate", "generate")


class _ProgressReporter:
    """Sends progress messages of a run. All values are known on the host: nothing synchronises."""

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        epochs: int,
        meter: PhaseMeter,
        memory: MemoryPeaks,
    ) -> None:
        self._send, self._epochs, self._meter, self._memory = send, epochs, meter, memory
        self.rows = 0  # of an epoch
        self._step, self._steps = 0, 0  # steps done, and steps in all
        self._last_sent = 0.0  # when the last message about a step was sent

    def enter(self, phase: str | None) -> None:
        """Report what the phase does. Training reports its steps instead."""
        if phase in PHASE_ACTIVITIES:
            self._send({"activity": PHASE_ACTIVITIES[phase]})

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


class Turn(Protocol):
    """A lock that only one of several runs holds."""

    @property
    def is_locked(self) -> bool:
        """Whether this run holds it."""

    def acquire(self) -> Any:
        """Wait until no other run holds it, and take it."""

    def release(self) -> None:
        """Let another run take it."""


class Profiler:
    """Profiler of a run: implements the engine's callbacks and collects all metrics of its cost.

    On a GPU it reads torch's allocator, CUDA events and NVML; on a CPU a clock and the resident
    set size. `progress` receives messages during training. With `turn` the run trains only while
    it holds it. `gpu_levels` is handed on from run to run in one process: see `DeviceMonitor`.
    """

    def __init__(
        self,
        device: str,
        progress: Callable[[dict[str, Any]], None],
        epochs: int,
        turn: Turn | None = None,
        gpu_levels: dict[str, int] | None = None,
    ) -> None:
        self.cuda = device.startswith("cuda")
        self._turn = turn
        self._device = DeviceMonitor(cuda=self.cuda, levels=gpu_levels)
        self.meter = PhaseMeter(
            CudaMemory() if self.cuda else ResidentMemory(),
            sensors=self._device.sensors,
            synchronize=self.synchronize,
        )
        self._steps = CudaSteps() if self.cuda else HostSteps()
        self._memory = MemoryPeaks(self.meter)
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
            check_address_space()
        self._take_turn(phase)
        self.meter.enter(phase)
        self._end_turn(phase)
        self._progress.enter(phase)
        if phase == "train":
            self._training_began = self._training_began or time.time()
            self._steps.begin()

    def _take_turn(self, phase: str | None) -> None:
        """Wait for the turn to train. The wait belongs to no phase."""
        if phase == "train" and self._turn is not None and not self._turn.is_locked:
            self.meter.enter(None)
            self._turn.acquire()

    def _end_turn(self, phase: str | None) -> None:
        if phase != "train" and self._turn is not None and self._turn.is_locked:
            self._turn.release()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Record that a training step was launched."""
        self._steps.end_of_step()
        self._progress.step(epoch, step, steps)

    def epoch(self, result: EpochResult) -> None:
        """Report an epoch that was trained and evaluated."""
        self._progress.epoch(result)

    def method_peak_bytes(self, training: Interval) -> int | None:
        """Return the method's peak bytes in an interval of training.

        None if the engine keeps memory, as one that replays captured steps does.
        """
        return None if self._memory.engine_keeps_memory() else training.peak_bytes

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

    def record_engine_tensors(self, tensors: Sequence[torch.Tensor]) -> None:
        """Record tensors that the engine keeps on the device. The method alone does not need them.

        They are kept alive to the end, so that every later peak includes them and they can be
        subtracted, even after the engine is gone.
        """
        self._memory.engine_tensors = tensors

    @contextlib.contextmanager
    def peak_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[PeakStep]:
        """Context manager around a peak step: break down its memory peak (GPU only).

        Of several steps the one with the highest peak counts. The step before them does not: the
        compiler tries kernels in it, with memory that later runs do not need.
        """
        if not self.cuda:
            yield NoTrace()
            return
        if not self._memory.parts:
            self.meter.forget_peak()
        with PeakTrace(model, optimizer) as trace:
            yield trace
        if sum(trace.parts.values()) > sum(self._memory.parts.values()):
            self._memory.parts = trace.parts  # not the trace: it references the optimizer

    def metrics(self) -> dict[str, float | None]:
        """Return all measured metrics by their names in METRICS, of all ranks together.

        Metrics that this device does not have are None.
        """
        meter, steps = self.meter, self._steps.seconds()
        own = {
            "step_median_seconds": float(np.median(steps)) if steps else None,
            "step_p95_seconds": float(np.quantile(steps, 0.95)) if steps else None,
            "energy_joules": meter.total("energy", "train") or None,  # the counter stood still
            "thermal_slowdown_seconds": meter.total("heat", "train"),
            "busy_share": share(meter.total("busy", "train"), meter.seconds("train")),
            **self._memory.metrics(),
        }
        return of_all_ranks(own)

    def environment(self) -> dict[str, Any]:
        """Return the meaning of memory values, the GPU's state and the time of training.

        `trained_between` holds the Unix time of the first and the last training step.
        """
        device = self._device.environment()
        return {
            "memory_kind": self.meter.memory.kind,
            "memory_before_bytes": self.meter.level_before if self.cuda else None,
            **device,
            "trained_between": [self._training_began, self._training_ended],
            **environment_of_ranks(self._memory.metrics(), device["gpu"]),
        }
