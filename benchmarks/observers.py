"""Callbacks and observers that time a training loop, with the profiler or without."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from transformers import TrainerCallback

from peft_methods.training.engine import NoTrace


class Window(TrainerCallback):
    """Trainer callback: time windows of `steps` steps. The first is a warm-up and left out."""

    def __init__(self, steps: int, device: str) -> None:
        self._steps, self._device = steps, device
        self._borders: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps == 0:
            synchronize(self._device)
            self._borders.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [
            after - before for before, after in zip(self._borders, self._borders[1:], strict=False)
        ]


class Kernels(TrainerCallback):
    """Trainer callback: milliseconds per step of each kernel on the device.

    `steps` steps are profiled, after `steps` steps of warm-up.
    """

    def __init__(self, steps: int, device: str) -> None:
        self._steps, self._device = steps, device
        kind = torch.profiler.ProfilerActivity
        self._profiler = torch.profiler.profile(
            activities=[kind.CUDA if device == "cuda" else kind.CPU]
        )
        self._time = f"self_{'device' if device == 'cuda' else 'cpu'}_time_total"
        self.milliseconds: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step not in {self._steps, 2 * self._steps}:
            return
        synchronize(self._device)  # so that no unfinished step is counted or left out
        if state.global_step == self._steps:
            self._profiler.start()
        else:
            self._profiler.stop()
            found = {
                event.key: getattr(event, self._time) / 1000 / self._steps
                for event in self._profiler.key_averages()
            }
            self.milliseconds = dict(sorted(found.items(), key=lambda item: -item[1]))


class NullObserver:
    """An observer that ignores all callbacks."""

    def enter(self, phase: str) -> None:
        pass

    def step(self, epoch: int, step: int, steps: int) -> None:
        pass

    def epoch(self, result: Any) -> None:
        pass

    def record_engine_tensors(self, tensors: Any) -> None:
        pass

    def peak_step(self, model: Any, optimizer: Any) -> Any:
        return nullcontext(NoTrace())

    def measured(self) -> dict[str, Any]:
        return {}

    def take_over(self, measured: dict[str, Any]) -> None:
        pass


class EveryOtherEpoch(NullObserver):
    """An observer that runs the profiler in one epoch of each pair and not in the other.

    `seconds` holds the training time of each epoch.
    """

    def __init__(self, profiler: Any, synchronize: Any) -> None:
        self.seconds: list[float] = []
        self._profiler, self._synchronize = profiler, synchronize
        self._sampling: Any = None
        self._since: float | None = None

    @staticmethod
    def is_on(epoch: int) -> bool:
        """Whether an epoch uses the profiler.

        Of epochs 1 and 2 it is the second, of 3 and 4 the first, and so on, so that a drift affects
        both kinds equally.
        """
        return epoch % 4 in {2, 3}

    def enter(self, phase: str) -> None:
        self._synchronize()
        if self._since is not None:
            self.seconds.append(time.perf_counter() - self._since)
            self._since = None
        if self._sampling is not None:
            self._profiler.enter(phase)
            self._sampling.__exit__(None, None, None)
            self._sampling = None
        if phase == "train":
            if self.is_on(len(self.seconds)):
                self._sampling = self._profiler.running()
                self._sampling.__enter__()
                self._profiler.enter(phase)
            self._synchronize()
            self._since = time.perf_counter()

    def step(self, epoch: int, step: int, steps: int) -> None:
        if self._sampling is not None:
            self._profiler.step(epoch, step, steps)

    def record_engine_tensors(self, tensors: Any) -> None:
        self._profiler.record_engine_tensors(tensors)

    def peak_step(self, model: Any, optimizer: Any) -> Any:
        return self._profiler.peak_step(model, optimizer)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
