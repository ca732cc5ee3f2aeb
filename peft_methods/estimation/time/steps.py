"""Seconds and joules of training steps, from their operations and a device's rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import Basis, Interval
from peft_methods.estimation.time.kernels import (
    device_seconds,
    fused,
    is_kernel,
    kernel_seconds,
    optimizer_seconds,
    without_frozen_casts,
)
from peft_methods.estimation.time.rates import DeviceRates

Engine = Literal["trainer", "cuda_graphs"]
TRAINER_STEP = 4e-3
GRAPH_STEP = 1.5e-3
BACKWARD_LAUNCH = 0.6
TENSOR_LAUNCH = 0.5


@dataclass(frozen=True)
class StepTime:
    device: float
    host: float

    @property
    def seconds(self) -> float:
        return max(self.device, self.host)


def step_time(program: StepProgram, rates: DeviceRates, engine: Engine, *, tf32: bool = False) -> StepTime:
    passes = [one for one in program.operations if one.part != "optimizer" and is_kernel(one)]
    optimizer = [one for one in program.operations if one.part == "optimizer"]
    updating, tensors = optimizer_seconds(optimizer, rates)
    if engine == "cuda_graphs":
        kept = fused(without_frozen_casts(passes))
        device = sum(kernel_seconds(group, rates, tf32=tf32) for group in kept)
        return StepTime(device + updating, GRAPH_STEP)
    device = updating + sum(device_seconds(one, rates, tf32=tf32) for one in passes)
    forward = sum(one.part == "forward" for one in passes)
    launches = forward + BACKWARD_LAUNCH * (len(passes) - forward) + TENSOR_LAUNCH * tensors
    return StepTime(device, TRAINER_STEP + rates.launch * launches)
