"""The seam below the estimates: memory of one run, seconds of its steps, and devices by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from peft_methods.estimation.results import Basis, Interval, MemoryEstimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_methods.estimation.operations import StepProgram
    from peft_methods.methods.base import Method
    from peft_methods.recipes.schema import Recipe


class Device(Protocol):
    """A GPU whose rates are known."""

    @property
    def name(self) -> str:
        """The name, such as "T4"."""

    @property
    def memory_bytes(self) -> int:
        """The memory that its driver reports."""

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA's compute capability."""


@dataclass(frozen=True)
class RunMemory:
    """The memory of a run, the program of its step, and sizes in parameters and bytes."""

    memory: MemoryEstimate
    program: StepProgram
    trainable: int
    total: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on a device, its mean power (None where unknown), and their basis."""

    seconds: Interval
    watts: Interval | None
    basis: Basis


class Estimator(Protocol):
    """What an estimate of one run is made of."""

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
        """Estimate the memory of a run whose largest batch has so many rows of so many tokens.

        `capability` is the compute capability of the GPU, None if unknown. Raises
        `PeftMethodsError` for a run that cannot be.
        """

    def step(
        self, program: StepProgram, device: Device, *, recipe: Recipe, engine: str
    ) -> StepTime:
        """Estimate the seconds of a step that an engine runs."""

    def epoch(
        self, steps: Mapping[int, Interval], lengths: Sequence[int], recipe: Recipe
    ) -> Interval:
        """Estimate the seconds of an epoch over rows of these lengths.

        `steps` has the seconds of a step by the length of its rows.
        """

    def device(self, name: str) -> Device:
        """Return a device by name. Raises `OptionError` with the nearest name."""
