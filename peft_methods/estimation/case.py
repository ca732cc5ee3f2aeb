"""One run under estimation: its memory, its FLOPs and, on a known device, its time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from peft_methods.estimation import question, rows
from peft_methods.estimation.estimator import Estimator, RunMemory
from peft_methods.estimation.fitting import Needed, largest_that_fits, needed_bytes
from peft_methods.estimation.gpu import Gpu
from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import Interval, TimeEstimate
from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe

LENGTH_STEP = 8  # tokens, between lengths that are tried
MOST_BATCH = 4096  # rows; larger batches are not looked for


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
        return self.estimator.memory(
            recipe, self.method, engine=self.engine, batch_size=batch_size, length=length
        )

    @cached_property
    def program(self) -> StepProgram:
        """The program of a usual batch."""
        usual = rows.usual_row(self.recipe)
        return (
            self.run.program if usual == self.length else self._run(self.batch_size, usual).program
        )

    @property
    def _epochs(self) -> int:
        """The passes over the rows that cost time: one, if features are stored."""
        return 1 if self.method.info.stores_features else self.recipe.budget.epochs

    @cached_property
    def batches(self) -> int | None:
        """The batches of an epoch; None where the number of rows is unknown."""
        count = rows.train_rows(self.recipe)
        return None if count is None else math.ceil(count / self.batch_size)

    @property
    def flops_a_row(self) -> float:
        """The FLOPs of a usual batch, for each of its rows."""
        return self.program.flops / self.batch_size

    @cached_property
    def time(self) -> TimeEstimate | None:
        """The time; None on a device whose rates are unknown, or with unknown rows."""
        device = None if self.gpu is None else self.gpu.device
        if device is None or self.batches is None:
            return None
        step = self.estimator.step(self.program, device)
        batch = step.seconds
        steps = self.recipe.budget.gradient_accumulation
        if steps > 1:  # the optimizer acts once in so many batches
            others = [one for one in self.program.operations if one.part != "optimizer"]
            without = self.estimator.step(replace(self.program, operations=others), device).seconds
            batch = _between(batch, without, 1 / steps)
        epoch = _times(batch, self.batches)
        train = _times(epoch, self._epochs)
        energy = None if step.watts is None else _times(train, step.watts)
        return TimeEstimate(batch, epoch, train, energy, step.basis)

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


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(interval.low * factor, interval.expected * factor, interval.high * factor)


def _between(whole: Interval, part: Interval, share: float) -> Interval:
    """Return the part, and this share of what the whole is more."""
    return Interval(
        *(
            getattr(part, end) + share * (getattr(whole, end) - getattr(part, end))
            for end in ("low", "expected", "high")
        )
    )
