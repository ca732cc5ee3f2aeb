"""Everything that is read off one cell's run, between the engine that trains and the record that is written."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
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

OF_EPOCHS = (
    "train",
    "evaluate",
    "save",
)  # the other phases are gone through anew by every process that goes on with a cell
PROGRESS_INTERVAL = (
    0.25  # seconds between two messages of training steps: more often than that nobody can read
)
TRAINING = (
    "warm_up",
    "train",
)  # the warm-up's last step is the worst batch: it belongs to the training peak
COMPUTING = (*TRAINING, "evaluate")  # phases whose matrix products are in the figures of quality
SPARE_ADDRESSES = (
    32 * 2**20
)  # bytes; for a base model's widest product MKL went without its buffer at 8 MiB, not at 16
DOING = {
    "data": "reading the data",
    "prepare": "trying the model",
    "load": "loading the model",
    "tokenize": "tokenizing",
    "capture": "capturing the training step",
    "evaluate": "evaluating",
    "save": "saving",
    "check": "comparing weights",
    "infer": "timing inference",
}  # any other phase is training
FEWER_ROWS = "Fewer rows fit: --peft-set data.train=N."
SMALLER = "What would fit: a smaller model, or a machine with more free memory."
WAYS_OUT = {
    "data": FEWER_ROWS,
    "tokenize": FEWER_ROWS,
    "prepare": "What would fit: a smaller model, smaller batches (--peft-set budget.batch_size=N) or a shorter data.max_length.",
    "load": "The weights alone do not fit: take qlora, or a smaller model.",
    "capture": "The stock engine needs less: --peft-engine stock.",
    "evaluate": "Smaller evaluation batches fit: --peft-set budget.evaluation_batch_size=8.",
    "save": SMALLER,
    "check": SMALLER,
    "infer": "What would fit: a shorter data.max_length, or a smaller model.",
}
IN_TRAINING = (
    "What would fit: half the batch (--peft-set budget.batch_size=N with budget.gradient_accumulation=2 for the same step), "
    "budget.gradient_checkpointing=true, a shorter data.max_length, or qlora."
)


class Instruments:
    """A listener for the engine. On a GPU it asks torch's allocator, CUDA events and NVML; on a CPU clock and resident set.

    What it tells of training on the way (`progress`) is known on the host: nothing waits for the device. `rows` are those of
    an epoch, once they are known.
    """

    def __init__(
        self, device: str, progress: Callable[[dict[str, Any]], None], epochs: int
    ) -> None:
        self._gpu: nvml.Gpu | None = None
        self._device_memory: nvml.DeviceMemory | None = None
        self.cuda = device.startswith("cuda")
        self._progress, self._epochs, self.rows = progress, epochs, 0
        self._at, self._told = (
            (0, 0),
            0.0,
        )  # (step, steps in all); when news of a step was last told
        levels = nvml.levels() if self.cuda else {}
        gauges = self._gauges(levels) if self.cuda else {"busy": ThreadTime()}
        self.meter = PhaseMeter(
            CudaMemory() if self.cuda else ResidentMemory(),
            gauges=gauges,
            synchronize=self.synchronize,
        )
        self._steps = _CudaSteps() if self.cuda else _HostSteps()
        self._parts: dict[str, int] = {}
        self._engines_own: Sequence[torch.Tensor] = ()
        self._trained: list[float | None] = [None, None]
        self.state_before = self._gpu.state() if self._gpu else None

    def _gauges(self, levels: dict[str, int]) -> dict[str, Gauge]:
        gauges: dict[str, Gauge] = {"reserved": ReservedMemory()}
        self._gpu = nvml.Gpu.current()
        if self._gpu is not None:
            self._device_memory = nvml.DeviceMemory(
                self._gpu, level_at_start=levels.get(self._gpu.uuid)
            )
            gauges |= {
                "device": self._device_memory,
                "energy": nvml.Energy(self._gpu),
                "heat": nvml.Throttling(self._gpu),
            }
        return gauges

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sample in the background as long as this lasts; an error for want of memory leaves it as `OutOfMemory`."""
        sampling = (
            self._device_memory.sampling() if self._device_memory else contextlib.nullcontext()
        )
        try:
            with sampling:
                yield
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(self._explained(error)) from error
            raise

    def enter(self, phase: str | None) -> None:
        """A phase begins, and the one before ends."""
        if self.meter.phase == "train":
            self._trained[1] = time.time()
        if self.meter.phase in COMPUTING and not self.cuda:
            _refuse_want_of_memory()
        self.meter.enter(phase)
        if phase in DOING:
            self._progress({"doing": DOING[phase]})
        if phase == "train":
            self._trained[0] = self._trained[0] or time.time()
            self._steps.begin()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """A training step was launched."""
        self._steps.end_of_step()
        self._at = step, steps
        now = time.monotonic()
        if now - self._told >= PROGRESS_INTERVAL:
            self._told = now
            self._progress({"epoch": epoch, **self._place()})

    def epoch(self, result: EpochResult) -> None:
        """An epoch was judged."""
        self._progress({**asdict(result), **self._place()})

    def _place(self) -> dict[str, Any]:
        """How far training is, its pace and its peak so far."""
        step, steps = self._at
        seconds = self.meter.seconds_so_far("train")
        return {
            "epochs": self._epochs,
            "step": step,
            "steps": steps,
            "train_seconds": seconds,
            "samples_per_second": self.rows * self._epochs * step / steps / seconds
            if steps and seconds
            else None,
            "peak_memory_bytes": self.meter.peak_so_far(*self._methods_own()),
        }

    def _methods_own(self) -> tuple[str, ...]:
        """The phases whose peak is the method's: where steps are captured those before that, since replays hold what the engine needs."""
        return ("warm_up",) if self._has_captured() else TRAINING

    def methods_peak(self, training: Interval) -> int | None:
        """Bytes of a stretch of training; None where steps were captured: what replays hold is not the method's."""
        return None if self._has_captured() else training.peak_bytes

    def _has_captured(self) -> bool:
        return self.meter.peak("capture") is not None

    def measured(self) -> dict[str, Any]:
        """What was measured of the epochs so far, as JSON values; the phase at work is not in it."""
        intervals = [
            asdict(interval) for interval in self.meter.intervals if interval.phase in OF_EPOCHS
        ]
        return {
            "intervals": intervals,
            "steps": self._steps.seconds(),
            "trained_from": self._trained[0],
        }

    def take_over(self, measured: dict[str, Any]) -> None:
        """Go on from what another process measured of the first epochs."""
        self.meter.intervals[:0] = [Interval(**interval) for interval in measured["intervals"]]
        self._steps.earlier = measured["steps"]
        self._trained[0] = measured["trained_from"]

    def engine_keeps(self, tensors: Sequence[torch.Tensor]) -> None:
        """The engine has these on the device from now on, which the method by itself would not.

        They are held here to the end: in every later peak alike, also in one after the engine is gone, they can be left out.
        """
        self._engines_own = tensors

    @contextlib.contextmanager
    def worst_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[WorstStep]:
        """Around one whole step on the longest batch: what its peak is made of."""
        if not self.cuda:
            yield NoTrace()
            return
        with PeakTrace(model, optimizer) as trace:
            yield trace
        self._parts = trace.parts  # not the trace: it holds the optimizer

    def metrics(self) -> dict[str, float | None]:
        """Every figure that was read, under its name in METRICS; None where this device has none."""
        phases = {"load": ("load",), "train": TRAINING, "evaluate": ("evaluate",)}
        own = {**phases, "train": self._methods_own()}
        meter, steps = self.meter, self._steps.seconds()
        found: dict[str, float | None] = {
            "step_median_seconds": float(np.median(steps)) if steps else None,
            "step_p95_seconds": float(np.quantile(steps, 0.95)) if steps else None,
            "energy_joules": meter.total("energy", "train"),
            "thermal_slowdown_seconds": meter.total("heat", "train"),
            "busy_share": _share(meter.total("busy", "train"), meter.seconds("train")),
        }
        for phase in MEMORY_PHASES:
            found[f"{phase}_allocated_bytes"] = meter.peak(*own[phase])
            found[f"{phase}_reserved_bytes"] = meter.highest("reserved", *own[phase])
            found[f"{phase}_device_bytes"] = meter.highest("device", *phases[phase])
        if found["evaluate_allocated_bytes"] is not None:
            found["evaluate_allocated_bytes"] -= sum(tensor.nbytes for tensor in self._engines_own)
        found["engine_reserved_bytes"] = (
            meter.highest("reserved", "capture", "train") if self._has_captured() else None
        )
        peak = found["peak_memory_bytes"] = found["train_allocated_bytes"]
        parts = self._parts
        if parts and peak is not None:
            parts = {**parts, "unattributed": int(peak) - sum(parts.values())}
        return found | {f"{part}_bytes": parts.get(part) for part in MEMORY_PARTS}

    def environment(self) -> dict[str, Any]:
        """What memory figures are, the device's state before and after, and when (Unix time) the first and the last step were."""
        gpu = {"before": self.state_before, "after": self._gpu.state()} if self._gpu else None
        kind = self._device_memory.kind if self._device_memory else None
        before = self.meter.level_before if self.cuda else None
        return {
            "memory_kind": self.meter.memory.kind,
            "memory_before_bytes": before,
            "device_memory_kind": kind,
            "gpu": gpu,
            "trained_between": self._trained,
        }

    def _explained(self, error: Exception) -> str:
        phase = self.meter.phase or ""
        asked = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        room = ""
        if self.cuda:
            free, total = torch.cuda.mem_get_info()
            room = f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB were free)"
        return f"out of memory while {DOING.get(phase, 'training')}{room}: {asked} {WAYS_OUT.get(phase, IN_TRAINING)}"


def _refuse_want_of_memory() -> None:
    """Raise `OutOfMemory` if the phase that ends may have wanted for memory without saying so.

    Where MKL gets none for its buffers it multiplies by another kernel, in silence: the last bits of all figures are others then.
    """
    left = address_space_left()
    if left is not None and left < SPARE_ADDRESSES:
        raise OutOfMemory(
            f"{left / 2**20:.1f} MiB were left of the address space allowed (ulimit -v), and short of memory "
            f"matrix products may come out differently in their last bits. Raise the limit."
        )


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else part / whole


class _HostSteps:
    """Seconds between the ends of successive steps, by the host's clock."""

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
    """The same by CUDA events, which cost microseconds and wait for nothing; they are read when all is over."""

    def __init__(self) -> None:
        self.earlier: list[float] = []
        self._stretches: list[list[torch.cuda.Event]] = []

    def begin(self) -> None:
        self._stretches.append([])
        self.end_of_step()

    def end_of_step(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._stretches[-1].append(event)

    def seconds(self) -> list[float]:
        torch.cuda.synchronize()
        return self.earlier + [
            a.elapsed_time(b) / 1000
            for events in self._stretches
            for a, b in itertools.pairwise(events)
        ]
