"""An estimator by formulas, for tests of everything above the estimates of single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from peft_methods.estimation.estimator import Device, RunMemory, StepTime
from peft_methods.estimation.operations import Operation, StepProgram
from peft_methods.estimation.results import Interval, MemoryEstimate
from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.utils.errors import ModelError, OptionError, unknown

PARAMETERS = 100_000_000
VOCABULARY = 50_265  # of roberta-base
CONTEXT = 500_000_000  # bytes of the CUDA context
TOKEN_BYTES = 1_000_000  # of activations
RATE = 1e13  # FLOPs a second


@dataclass(frozen=True)
class T4:
    """A device of the formulas."""

    name: str = "T4"
    memory_bytes: int = 16_000_000_000
    capability: tuple[int, int] = (8, 0)


@dataclass
class FormulaEstimator:
    """Memory is linear in the tokens of a batch. `asked` has every run that was estimated."""

    token_bytes: int = TOKEN_BYTES
    logits: bool = False
    failing: dict[str, Exception] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)

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
        self.asked.append((method.name, batch_size, length))
        if method.name in self.failing:
            raise self.failing[method.name]
        quantized = method.info.quantization is not None
        trains_all = method.info.scope == "all"
        trainable = PARAMETERS if trains_all else PARAMETERS // 100
        activations = batch_size * length * self.token_bytes
        if recipe.budget.gradient_checkpointing:
            activations //= 4
        parts = {
            "weights": PARAMETERS if quantized else 4 * PARAMETERS,
            "gradients": 4 * trainable,
            "optimizer_state": (8 if method.info.optimizer == "adamw" else 2) * trainable,
            "activations": activations * 5 // 4 if quantized else activations,
            "workspace": 10_000_000,
            "rounding": 1_000_000,
        }
        peak = sum(parts.values())
        memory = MemoryEstimate(
            {"load": parts["weights"], "train": peak, "evaluate": peak // 2},
            parts,
            around(peak, 0.02),
            around(peak, 0.05),
            Interval(peak + CONTEXT, 1.02 * peak + CONTEXT, 1.1 * peak + CONTEXT),
        )
        program = self._program(recipe, trains_all, batch_size, length)
        return RunMemory(memory, program, trainable, PARAMETERS, 4 * trainable)

    def _program(self, recipe: Recipe, trains_all: bool, rows: int, length: int) -> StepProgram:
        tokens = rows * length
        forward = 2 * PARAMETERS * tokens
        again = forward if recipe.budget.gradient_checkpointing else 0
        backward = (2 if trains_all else 1.3) * forward + again
        shape = ((tokens, VOCABULARY),) if self.logits else ()
        operations = [
            Operation("aten.mm", "forward", forward, 0, 0, torch.float32),
            Operation("aten._log_softmax", "forward", 0, 0, 0, torch.float32, shape),
            Operation("aten.mm", "backward", int(backward), 0, 0, torch.float32),
            Operation("aten._foreach_add_", "optimizer", int(RATE / 1000), 0, 0, torch.float32),
        ]
        return StepProgram(operations, rows, tokens)

    def step(
        self, program: StepProgram, device: Device, *, recipe: Recipe, engine: str
    ) -> StepTime:
        return StepTime(around(program.flops / RATE, 0.1), around(70.0, 0.2), "datasheet")

    def epoch(
        self, steps: Mapping[int, Interval], lengths: Sequence[int], recipe: Recipe
    ) -> Interval:
        batches, each = -(-len(lengths) // recipe.budget.batch_size), steps[min(steps)]
        return Interval(each.low * batches, each.expected * batches, each.high * batches)

    def device(self, name: str) -> Device:
        if name == "cpu":
            return T4("a processor", 0)
        if name.casefold() != "t4":
            raise OptionError(unknown("gpu", name, ("T4", "L4")), setting="gpu")
        return T4()


def around(value: float, margin: float) -> Interval:
    """An interval of a value and a relative margin."""
    return Interval(value * (1 - margin), value, value * (1 + margin))


def refusing(reason: str) -> ModelError:
    """An error of a run that cannot be."""
    return ModelError(reason)


def parts_of(**parts: Any) -> dict[str, int]:
    """Parts of a peak."""
    return dict(parts)
