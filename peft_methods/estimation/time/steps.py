"""Seconds and joules of training steps, from their operations and a device's rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from peft_methods.estimation.operations import Operation, StepProgram
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
# Of the host, in seconds and relative to an operation of the forward pass: see
# docs/explanation/estimates.md, "Time".
TRAINER_STEP = 4e-3  # of the Trainer's loop, besides the operations
GRAPH_STEP = 1.85e-3  # of the Trainer's loop around the replay of a graph
BACKWARD_LAUNCH = 0.6  # an operation of the backward pass, which no Python code calls
TENSOR_LAUNCH = 0.5  # a trained tensor, for clipping and AdamW
WIDTHS: Mapping[Basis, Mapping[str, float]] = {
    "datasheet": {"device": 1.4, "host": 1.6},
    "probe": {"device": 1.4, "host": 1.6},
    "records": {"device": 1.1, "host": 1.3},
}
POWER_WIDTH = 1.3
GROUPED_BATCHES = 50  # that are sorted by length together (transformers' LengthGroupedSampler)


@dataclass(frozen=True)
class StepTime:
    """The seconds of a step that the device computes, and that the host needs to launch it.

    Both work at the same time, so the step takes as long as the slower of them.
    """

    device: float
    host: float

    @property
    def seconds(self) -> float:
        """The seconds of the step."""
        return max(self.device, self.host)

    @property
    def busy(self) -> float:
        """The share of the step in which the device computes, 0 to 1."""
        return self.device / self.seconds if self.seconds else 0.0


def step_time(
    program: StepProgram, rates: DeviceRates, engine: Engine, *, tf32: bool = False
) -> StepTime:
    """Return the seconds of a step that an engine runs.

    `trainer`: the host launches each operation, which is a kernel of its own. `cuda_graphs`: the
    host launches one graph; the compiler fuses what is not a product or attention, and frozen
    weights are not cast. The program's rows should then be as long as the mean of a batch where
    rows are packed, else as its longest.
    """
    passes = [one for one in program.operations if one.part != "optimizer" and is_kernel(one)]
    updating, tensors = optimizer_seconds(_optimizer(program), rates)
    if engine == "cuda_graphs":
        kernels = fused(without_frozen_casts(passes))
        device = sum(kernel_seconds(group, rates, tf32=tf32) for group in kernels)
        return StepTime(device + updating, 0.0 if rates.launch == 0 else GRAPH_STEP)
    device = updating + sum(device_seconds(one, rates, tf32=tf32) for one in passes)
    if rates.launch == 0:  # the host is the device
        return StepTime(device, 0.0)
    forward = sum(one.part == "forward" for one in passes)
    launches = forward + BACKWARD_LAUNCH * (len(passes) - forward) + TENSOR_LAUNCH * tensors
    return StepTime(device, TRAINER_STEP + rates.launch * launches)


def with_interval(time: StepTime, basis: Basis) -> Interval:
    """Return the range of a step's seconds that holds the measured ones in 95 % of runs."""
    bound = "host" if time.host > time.device else "device"
    return spread(time.seconds, WIDTHS[basis][bound])


def spread(expected: float, width: float) -> Interval:
    """Return the interval from `expected / width` to `expected * width`."""
    return Interval(expected / width, expected, expected * width)


def batch_lengths(
    lengths: Sequence[int], batch_size: int, *, packed: bool = False
) -> list[float]:
    """Return the length of each step's rows in an epoch over rows of these lengths.

    It is that of a batch's longest row, to which the others are padded, or with `packed` the mean.
    Batches are of rows of similar length: `GROUPED_BATCHES` batches are drawn and sorted. Instead
    of drawing them, evenly spaced ones of the sorted rows are taken. A last, incomplete batch
    counts as a whole one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} should be at least 1")
    ordered = np.sort(np.asarray(lengths, dtype=float))[::-1]
    groups = max(1, len(ordered) // (GROUPED_BATCHES * batch_size))
    batches = [
        group[start : start + batch_size]
        for group in (ordered[first::groups] for first in range(groups))
        for start in range(0, len(group), batch_size)
    ]
    return [float(batch.mean() if packed else batch.max()) for batch in batches]


def epoch_seconds(
    step_seconds_by_length: Mapping[int, Interval],
    lengths: Sequence[int],
    batch_size: int,
    *,
    packed: bool = False,
) -> Interval:
    """Return the seconds of an epoch over rows of these lengths.

    Steps are known for a few lengths of rows; others are interpolated linearly. Shorter ones take
    as long as the shortest known one, longer ones are extrapolated.
    """
    if not step_seconds_by_length:
        raise ValueError("step_seconds_by_length should have at least one length")
    wanted = batch_lengths(lengths, batch_size, packed=packed)
    known = sorted(step_seconds_by_length)
    intervals = [step_seconds_by_length[length] for length in known]
    return Interval(
        _total(known, [one.low for one in intervals], wanted),
        _total(known, [one.expected for one in intervals], wanted),
        _total(known, [one.high for one in intervals], wanted),
    )


def energy(seconds: Interval, busy: float, rates: DeviceRates) -> Interval | None:
    """Return the joules of training for so long; None where the device's power is not known.

    A device draws `idle_watts` while it waits and `loaded_watts` while it computes, for the share
    `busy` of the time.
    """
    if rates.idle_watts is None or rates.loaded_watts is None:
        return None
    watts = rates.idle_watts + busy * (rates.loaded_watts - rates.idle_watts)
    return Interval(
        seconds.low * watts / POWER_WIDTH,
        seconds.expected * watts,
        seconds.high * watts * POWER_WIDTH,
    )


def _optimizer(program: StepProgram) -> list[Operation]:
    return [one for one in program.operations if one.part == "optimizer"]


def _total(known: Sequence[int], seconds: Sequence[float], wanted: Sequence[float]) -> float:
    found = np.interp(wanted, known, seconds)
    if len(known) > 1:
        (before, last), (earlier, latest) = list(pairwise(known))[-1], list(pairwise(seconds))[-1]
        slope = max(0.0, (latest - earlier) / (last - before))
        found += slope * np.maximum(0.0, np.asarray(wanted) - last)
    return float(found.sum())
