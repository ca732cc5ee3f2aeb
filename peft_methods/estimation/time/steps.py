"""Seconds and joules of training steps, from their operations and a device's rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from peft_methods.estimation.operations import Operation, StepProgram
from peft_methods.estimation.results import Basis, Interval
from peft_methods.estimation.time.kernels import (
    fused,
    is_kernel,
    kernel_seconds,
    optimizer_seconds,
    updates_one_by_one,
    weights_in_8_bits,
    without_frozen_casts,
)
from peft_methods.estimation.time.rates import LAUNCH_SECONDS, DeviceRates

Engine = Literal["trainer", "cuda_graphs"]
# Of the host whose launch takes `LAUNCH_SECONDS`: see docs/explanation/estimates.md, "Time".
# Another one takes longer in proportion to its launches.
TRAINER_STEP = 4e-3  # seconds of the Trainer's loop, besides the operations
GRAPH_STEP = 1.85e-3  # seconds of the Trainer's loop around the replay of a graph
# Launches that an operation of bitsandbytes costs: its Python code runs for each layer.
QUANTISED_LAUNCHES = 5.2
# Seconds that bitsandbytes' update of a weight with moments in 8 bits takes a processor: one core
# of a Xeon, where AdamW's fused one took 1.2e-9. Others may differ widely.
PROCESSOR_UPDATE = 33e-9
WAITING = 0.75  # share of a step with kernels, below which it waits for the host
# Factors around the expected seconds that hold the measured ones in 95 % of runs, by what a step
# waits for: from the records whose recipes were left out of the fit of the constants, on H100 and
# H200, and for the host on H200 alone. Those of a probe are not validated yet and no narrower.
# `records`: trainings of the same spec differ so much between sessions.
WIDTHS: Mapping[Basis, Mapping[str, float]] = {
    "datasheet": {"device": 1.30, "host": 1.45},
    "probe": {"device": 1.30, "host": 1.45},
    "records": {"device": 1.15, "host": 1.15},
}
# On a processor that other programs use too: see docs/explanation/estimates.md, "On a CPU".
PROCESSOR_WIDTH = 2.5
POWER_WIDTH = 1.45  # around the expected power, by the records of the same GPUs
GROUPED_BATCHES = 50  # that are sorted by length together (transformers' LengthGroupedSampler)


@dataclass(frozen=True)
class StepTime:
    """The seconds of a step, and those of them in which the device runs kernels.

    `working` are those in which it computes or moves bytes: without what each kernel takes to
    start and to end. The power that it draws follows from them. `assumed` are those of `seconds`
    that rest on no measurement.
    """

    seconds: float
    device: float
    working: float
    assumed: float = 0.0

    @property
    def busy(self) -> float:
        """The share of the step in which the device computes or moves bytes, 0 to 1."""
        return min(1.0, self.working / self.seconds) if self.seconds else 0.0

    @property
    def bound(self) -> Literal["device", "host"]:
        """What the step waits for most."""
        return "device" if self.device >= WAITING * self.seconds else "host"


def step_time(
    program: StepProgram, rates: DeviceRates, engine: Engine, *, tf32: bool = False
) -> StepTime:
    """Return the seconds of a step that an engine runs.

    `trainer`: the host launches each operation, which is a kernel of its own and takes as long as
    its launch at least. `cuda_graphs`: the host launches one graph, while it prepares the next
    step; the compiler fuses what is not a product or attention, and frozen weights are not cast.
    The program's rows should then be as long as the mean of a batch where rows are packed, else as
    its longest.
    """
    return kernels_of(program, engine, is_host=not rates.launch).time(rates, tf32=tf32)


@dataclass(frozen=True)
class StepKernels:
    """The kernels of a step, each with how often it runs: most do once in every layer.

    `in_one`: the host launches them at once, as one graph. `optimizer` are the optimizer's
    operations.
    """

    counts: Mapping[tuple[Operation, ...], int]
    optimizer: Sequence[Operation]
    in_one: bool

    def time(self, rates: DeviceRates, *, tf32: bool = False) -> StepTime:
        """Return the seconds of the step on a device."""
        at_once = replace(rates, kernel=0.0, units=1)  # all units work, or none draws power
        updating, tensors = optimizer_seconds(self.optimizer, rates)
        each = {one: kernel_seconds(one, rates, tf32=tf32) for one in self.counts}
        device = updating + self._sum(each)
        working = optimizer_seconds(self.optimizer, at_once)[0]
        working += self._sum({one: kernel_seconds(one, at_once, tf32=tf32) for one in self.counts})
        if not rates.launch:  # the host is the device
            slow = PROCESSOR_UPDATE * weights_in_8_bits(self.optimizer)
            return StepTime(device + slow, device + slow, working + slow, slow)
        host = rates.loops * rates.launch / LAUNCH_SECONDS
        if self.in_one:
            return StepTime(max(device, GRAPH_STEP * host), device, working)
        launched = self._sum(
            {one: max(seconds, rates.launch * launches(one[0])) for one, seconds in each.items()}
        )
        launched += max(updating, rates.launch * tensors)
        # Assumed: the host takes as long for an update as for another operation of bitsandbytes,
        # and waits for each. One training on an H200 took 25.6 s where 31 s were expected.
        waited = rates.launch * QUANTISED_LAUNCHES * len(updates_one_by_one(self.optimizer))
        launched += waited
        return StepTime(TRAINER_STEP * host + launched, device, working, waited)

    def _sum(self, seconds: Mapping[tuple[Operation, ...], float]) -> float:
        return sum(count * seconds[one] for one, count in self.counts.items())


def kernels_of(program: StepProgram, engine: Engine, *, is_host: bool = False) -> StepKernels:
    """Return the kernels of a step that an engine runs. `is_host`: on a processor."""
    passes = [one for one in program.operations if one.part != "optimizer" and is_kernel(one)]
    optimizer = [one for one in program.operations if one.part == "optimizer"]
    in_one = engine == "cuda_graphs" and not is_host
    kernels = fused(without_frozen_casts(passes)) if in_one else ((one,) for one in passes)
    return StepKernels(Counter(kernels), optimizer, in_one)


def launches(operation: Operation) -> float:
    """Return how many times as long as most operations one takes the host."""
    return QUANTISED_LAUNCHES if operation.name.startswith("bitsandbytes") else 1.0


def with_interval(time: StepTime, basis: Basis, *, on_processor: bool = False) -> Interval:
    """Return the range meant to hold the measured seconds of a step in 95 % of runs.

    Seconds that are assumed may be none at the low end, and twice as many at the high end.
    """
    width = PROCESSOR_WIDTH if on_processor else WIDTHS[basis][time.bound]
    low, high = time.seconds - time.assumed, time.seconds + time.assumed
    return Interval(low / width, time.seconds, high * width)


def spread(expected: float, width: float) -> Interval:
    """Return the interval from `expected / width` to `expected * width`."""
    return Interval(expected / width, expected, expected * width)


def batch_lengths(lengths: Sequence[int], batch_size: int, *, packed: bool = False) -> list[float]:
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


def _total(known: Sequence[int], seconds: Sequence[float], wanted: Sequence[float]) -> float:
    found = np.interp(wanted, known, seconds)
    if len(known) > 1:
        (before, last), (earlier, latest) = list(pairwise(known))[-1], list(pairwise(seconds))[-1]
        slope = max(0.0, (latest - earlier) / (last - before))
        found += slope * np.maximum(0.0, np.asarray(wanted) - last)
    return float(found.sum())
