"""The estimator that is used: memory from a run's program, times from the rates of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from peft_methods.estimation import question
from peft_methods.estimation.estimator import Device, Estimator, RunMemory, StepTime
from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import Interval
from peft_methods.estimation.time import devices, probes, steps
from peft_methods.estimation.time.probes import Probed
from peft_methods.estimation.time.rates import (
    PROBE,
    Corrections,
    DeviceRates,
    corrected,
    from_datasheet,
)
from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe

if TYPE_CHECKING:
    from peft_methods.estimation.memory.estimate import RunEstimates

MOST_RUNS = 4  # whose programs are kept
CPU = "cpu"  # the name of the host as a device
LONG = 1.0  # seconds over which the power is asked for


@dataclass(frozen=True)
class KnownDevice:
    """A device with published figures or a probe, and the rates to expect of it."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    rates: DeviceRates


class ProgramEstimator:
    """Memory from a run's own program, devices by name, and times of steps from their rates.

    The programs of the last runs are kept: a search asks for many shapes of a batch.
    """

    def __init__(self) -> None:
        self._runs: dict[str, RunEstimates] = {}

    def memory(
        self,
        recipe: Recipe,
        method: Method,
        *,
        engine: str,
        batch_size: int,
        length: int,
        capability: tuple[int, int] | None = None,
    ) -> RunMemory:
        """Estimate the memory of a run whose largest batch has so many rows of so many tokens."""
        from peft_methods.estimation.memory.cuda_rules import AMPERE
        from peft_methods.estimation.memory.estimate import RunEstimates

        of_gpu = min(capability or AMPERE, AMPERE)  # newer ones have the same kernels
        shapeless = question.with_length(question.with_batch(recipe, 1), 1)
        key = repr((shapeless, method, engine, of_gpu))
        if key not in self._runs:
            if len(self._runs) == MOST_RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[key] = RunEstimates(recipe, method, engine, of_gpu)
        return self._runs[key].memory(batch_size, length)

    def device(self, name: str) -> KnownDevice:
        """Return a device by name, with the rates of its probe if one is kept.

        "cpu" is the host, which is probed if it was not. Raises `OptionError` with the nearest
        name.
        """
        probed = probes.measured(CPU) if name == CPU else probes.kept(name)
        if probed is not None:
            return from_probe(probed)
        found = devices.find_device(name)
        major, minor = found.capability.split(".")
        capability = int(major), int(minor)
        return KnownDevice(found.name, int(found.memory), capability, from_datasheet(found))

    def step(
        self, program: StepProgram, device: Device, *, recipe: Recipe, engine: str
    ) -> StepTime:
        """Estimate the seconds of a step that an engine runs on a device that this one knows."""
        rates = cast(KnownDevice, device).rates
        tf32 = recipe.budget.precision == "tf32"
        kind = cast(Literal["trainer", "cuda_graphs"], engine)
        found = steps.step_time(program, rates, kind, tf32=tf32)
        watts = steps.energy(Interval(LONG, LONG, LONG), found.busy, rates)
        seconds = steps.with_interval(found, rates.basis, on_processor=not rates.launch)
        return StepTime(seconds, watts, rates.basis)

    def epoch(
        self, steps_by_length: Mapping[int, Interval], lengths: Sequence[int], recipe: Recipe
    ) -> Interval:
        """Estimate the seconds of an epoch over rows of these lengths."""
        budget = recipe.budget
        packed = budget.padding == "packed"
        return steps.epoch_seconds(steps_by_length, lengths, budget.batch_size, packed=packed)


def default_estimator() -> Estimator:
    """Return the estimator of runs' own programs."""
    return ProgramEstimator()


def from_probe(probed: Probed, corrections: Corrections = PROBE) -> KnownDevice:
    """Return a probed device with the rates that training reaches of the measured ones."""
    rates = corrected(probed.rates, corrections)
    return KnownDevice(rates.name, probed.memory_bytes, probed.capability, rates)
