"""One run under estimation: its memory, its FLOPs and, on a known device, its time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from peft_methods.estimation import question, rows
from peft_methods.estimation.estimator import Device, Estimator, RunMemory, StepTime
from peft_methods.estimation.fitting import Needed, largest_that_fits, needed_bytes
from peft_methods.estimation.gpu import Gpu
from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import Interval, TimeEstimate
from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.training.engine import replay_problem
from peft_methods.training.registry import engine_of

LENGTH_STEP = 8  # tokens, between lengths that are tried
MOST_BATCH = question.MOST_ROWS  # larger batches are not looked for


@dataclass(frozen=True)
class Case:
    """A method on a recipe, trained by an engine.

    `longest` is the number of tokens that the model reads at most.
    """

    recipe: Recipe
    method: Method
    engine: str
    estimator: Estimator
    gpu: Gpu | None
    longest: int

    @property
    def used_engine(self) -> str:
        """The engine, or the one that takes its place where it cannot replay the method's steps."""
        return used_engine(self.engine, self.method)

    @property
    def batch_size(self) -> int:
        """The rows of a batch."""
        return self.recipe.budget.batch_size

    @cached_property
    def length(self) -> int:
        """The tokens of the longest row."""
        return rows.longest_row(self.recipe)

    @cached_property
    def run(self) -> RunMemory:
        """The memory of the run, with the program of its largest batch."""
        return self._run(self.batch_size, self.length)

    def _run(self, batch_size: int, length: int) -> RunMemory:
        recipe = question.with_batch(self.recipe, batch_size)
        if length > recipe.data.max_length:
            recipe = question.with_length(recipe, length)
        device = None if self.gpu is None else self.gpu.device
        return self.estimator.memory(
            recipe,
            self.method,
            engine=self.used_engine,
            batch_size=batch_size,
            length=length,
            capability=None if device is None else device.capability,
        )

    @cached_property
    def program(self) -> StepProgram:
        """The program of a usual batch."""
        return self._program(rows.usual_row(self.recipe))

    def _program(self, length: int) -> StepProgram:
        run = self.run if length == self.length else self._run(self.batch_size, length)
        return run.program

    @property
    def _epochs(self) -> int:
        """The passes over the rows that cost time: one, if features are stored."""
        return 1 if self.method.info.stores_features else self.recipe.budget.epochs

    @property
    def flops_a_row(self) -> float:
        """The FLOPs of a usual batch, for each of its rows."""
        return self.program.flops / self.batch_size

    @cached_property
    def time(self) -> TimeEstimate | None:
        """The time; None on a device whose rates are unknown, or with unknown rows."""
        device = None if self.gpu is None else self.gpu.device
        lengths = rows.row_lengths(self.recipe)
        if device is None or lengths is None:
            return None
        usual = rows.usual_row(self.recipe)
        steps = {one: self._step(one, device) for one in {usual, self.length}}
        seconds = {length: step.seconds for length, step in steps.items()}
        epoch = self.estimator.epoch(seconds, lengths, self.recipe)
        train = _times(epoch, Interval(*[self._epochs] * 3))
        step = steps[usual]
        energy = None if step.watts is None else _times(train, step.watts)
        return TimeEstimate(step.seconds, epoch, train, energy, step.basis)

    def _step(self, length: int, device: Device) -> StepTime:
        """Return the seconds of a batch with its share of an optimizer step."""
        program, steps = self._program(length), self.recipe.budget.gradient_accumulation
        how: dict[str, Any] = {"recipe": self.recipe, "engine": self.used_engine}
        whole = self.estimator.step(program, device, **how)
        if steps == 1:
            return whole
        passes = [one for one in program.operations if one.part != "optimizer"]
        without = self.estimator.step(replace(program, operations=passes), device, **how)
        return replace(whole, seconds=_between(whole.seconds, without.seconds, 1 / steps))

    def largest_batch(self) -> int:
        """Return the largest batch of this length that fits into the GPU."""
        return self._largest(lambda n: self._needed(n, self.length), self.batch_size, MOST_BATCH, 1)

    def largest_length(self) -> int:
        """Return the longest row, in steps of 8 tokens, with which this batch fits."""
        most = max(LENGTH_STEP, self.longest)
        return self._largest(
            lambda n: self._needed(self.batch_size, n), self.length, most, LENGTH_STEP
        )

    def _largest(self, needed: Needed, start: int, most: int, step: int) -> int:
        assert self.gpu is not None
        return largest_that_fits(needed, self.gpu.memory_bytes, start, most, step=step)

    def _needed(self, batch_size: int, length: int) -> float:
        if (batch_size, length) == (self.batch_size, self.length):
            return self.needed
        return needed_bytes(self._run(batch_size, length).memory)

    @property
    def needed(self) -> float:
        """The bytes that a GPU must have for this run."""
        return needed_bytes(self.run.memory)

    @property
    def fits(self) -> bool:
        """Whether the run fits into the GPU for certain."""
        return self.gpu is not None and self.needed <= self.gpu.memory_bytes

    def with_recipe(self, recipe: Recipe) -> Case:
        """Return the same method on a changed recipe."""
        return replace(self, recipe=recipe)


def used_engine(name: str, method: Method) -> str:
    """Return the engine that trains the method: its fallback if it cannot replay the steps."""
    engine = engine_of(name)
    is_unfit = engine.replays_steps and replay_problem(method) is not None
    return engine.fallback or name if is_unfit else name


def _times(one: Interval, other: Interval) -> Interval:
    return Interval(one.low * other.low, one.expected * other.expected, one.high * other.high)


def _between(whole: Interval, part: Interval, share: float) -> Interval:
    """Return the part, and this share of what the whole is more."""
    return Interval(
        *(
            getattr(part, end) + share * (getattr(whole, end) - getattr(part, end))
            for end in ("low", "expected", "high")
        )
    )
