"""The memory of a run: what its program needs, and how far a measured figure may be from it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from peft_methods.estimation.estimator import RunMemory
from peft_methods.estimation.memory.cuda_rules import AMPERE
from peft_methods.estimation.memory.fake_run import build
from peft_methods.estimation.memory.partition import StoredSizes
from peft_methods.estimation.memory.program import RecordedProgram, record
from peft_methods.estimation.memory.shapes import Programs
from peft_methods.estimation.memory.simulation import SimulatedMemory, simulate
from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import Interval, MemoryEstimate
from peft_methods.methods.base import Method
from peft_methods.models.config import load_config
from peft_methods.models.decoder_sizes import shares_keys
from peft_methods.models.families import family_of
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.training.precision import HALF
from peft_methods.training.registry import engine_of
from peft_methods.utils.errors import ModelError, PeftMethodsError, first_line

MIB = 2**20
# Of cuBLAS on Hopper: 32 MiB for each of two threads, and 1 for cublasLt. Elsewhere 8 for each.
WORKSPACE, LEAST_WORKSPACE = 65 * MIB, 17 * MIB
# Factors around the expected bytes that hold the measured ones (docs/explanation/estimates.md).
# Of 36 records of padded rows on an H200, 33 lie within 0.2 % and one was 4 % below its
# estimate. Of 31 with compiled layers, 30 lie between 1.2 % below and 9.9 % above.
PADDED, COMPILED = (0.95, 1.02), (0.93, 1.10)
# Of what torch reserves for the eager step. Of 13 cases that trained with limits on an H200, 10 did
# with at most 1.08 times their peak, and all with 160 MiB more than that.
RESERVED = (0.96, 1.08)
# Captured steps have memory of their own, which may be more than that of the peak step.
CAPTURED, MORE = 1.13, 160 * MIB
# Instead of MORE, for weights that were quantised on the GPU: they leave gaps. Two such cases did
# not train with 335 and 342 MiB more than their peak; without a limit they reserved 350 and 362.
GAPS = 400 * MIB
# Beside what torch reserves: the CUDA context and the code of libraries
CONTEXT = Interval(250 * MIB, 800 * MIB, 1050 * MIB)


class RunEstimates:
    """The memory of one run for any shape of its batch: few are recorded, others computed.

    `capability` is the compute capability of the GPU, by default that of Ampere or newer. Older
    GPUs have no flash attention, and so no packed rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        engine: str,
        capability: tuple[int, int] = AMPERE,
    ) -> None:
        self._recipe, self._method = recipe, method
        self._is_captured = engine_of(engine).replays_steps
        self._capability = capability
        self._packs = capability >= AMPERE and _packs(recipe, engine)
        self._checkpoint_bytes = 0
        self._stored: dict[Any, StoredSizes | None] = {}
        self._shares_keys = shares_keys(_config(recipe))
        self._programs = {pads: Programs(partial(self._recorded, pads)) for pads in (True, False)}

    def memory(self, batch_size: int, length: int) -> RunMemory:
        """Estimate the memory with batches of so many rows of at most so many tokens.

        Raises `PeftMethodsError` for a run that cannot be, or whose program depends on the values
        of its tensors.
        """
        found = [
            self._of(self._programs[pads].of(batch_size, length))
            for pads in self._paddings(batch_size)
        ]
        return max(found, key=lambda one: one.memory.phases["train"])

    def _paddings(self, batch_size: int) -> tuple[bool, ...]:
        """Return whether batches have padding: both where batches without any may need more memory.

        It is so for heads that share keys, without flash attention (`worst_batches` of the
        trainer's warm-up). A single row has no padding.
        """
        budget = self._recipe.budget
        if batch_size == 1 and budget.padding != "fixed":
            return (False,)
        has_flash = budget.precision in HALF and self._capability >= AMPERE
        return (True, False) if self._shares_keys and not (has_flash or self._packs) else (True,)

    def _of(self, program: RecordedProgram) -> RunMemory:
        return RunMemory(
            memory=_estimate(
                simulate(program),
                is_captured=self._is_captured,
                packs=self._packs,
                more=MORE if self._method.info.quantization is None else GAPS,
            ),
            program=_step(program),
            trainable=program.trainable,
            total=program.total,
            checkpoint_bytes=self._checkpoint_bytes,
        )

    def _recorded(self, pads: bool, batch_size: int, length: int) -> RecordedProgram:
        budget = replace(self._recipe.budget, batch_size=batch_size)
        recipe = replace(self._recipe, budget=budget)
        try:
            run = build(
                recipe,
                self._method,
                length,
                packs=self._packs,
                pads=pads,
                capability=self._capability,
            )
            program = record(replace(run, stored=self._stored))
        except PeftMethodsError:
            raise
        except Exception as error:  # a method or a library may fail in any way
            raise ModelError(
                f"{self._method.title} cannot be estimated: its program does not run without data "
                f"({type(error).__name__}: {first_line(error)})",
                setting="method",
            ) from error
        saved = self._method.saved_parameters(run.model).values()
        self._checkpoint_bytes = sum(one.numel() * one.element_size() for one in saved)
        return program


def _packs(recipe: Recipe, engine: str) -> bool:
    """Whether the engine packs the rows of this model and compiles its layers."""
    if not engine_of(engine).packs_decoders:
        return False
    return family_of(_config(recipe)) == "decoder"


def _config(recipe: Recipe) -> Any:
    """Return the model's config, which need not come with weights."""
    return load_config(replace(recipe.model, weights="random"), TASKS[recipe.task].head)


def _estimate(
    found: SimulatedMemory, *, is_captured: bool, packs: bool, more: int
) -> MemoryEstimate:
    train = found.phases["train"]
    phases = {
        name: level.allocated + (0 if name == "load" else WORKSPACE)
        for name, level in found.phases.items()
    }
    parts = {
        **found.parts,
        "workspace": WORKSPACE,
        "rounding": max(0, train.allocated - sum(found.parts.values())),
    }
    low, high = COMPILED if packs else PADDED
    spare = WORKSPACE - LEAST_WORKSPACE
    peak = phases["train"]
    # An evaluation comes after the graphs are captured, in memory that they do not use.
    most = max(train.reserved, found.phases["evaluate"].reserved)
    reserved = _reserved(most + WORKSPACE, is_captured=is_captured, packs=packs, more=more)
    return MemoryEstimate(
        phases,
        parts,
        Interval(low * peak - spare, peak, high * peak),
        reserved,
        Interval(
            reserved.low + CONTEXT.low,
            reserved.expected + CONTEXT.expected,
            reserved.high + CONTEXT.high,
        ),
    )


def _reserved(peak: int, *, is_captured: bool, packs: bool, more: int) -> Interval:
    """Return what torch reserves, given what it reserves for the peak step.

    It may be `more` bytes above a share of the peak.
    """
    low, high = RESERVED[0] - (0.05 if packs else 0), RESERVED[1] + (0.03 if packs else 0)
    if not is_captured:
        return Interval(low * peak, peak, high * peak + more)
    return Interval(low * peak, peak * (1 + CAPTURED) / 2 + more / 2, CAPTURED * peak + more)


def _step(program: RecordedProgram) -> StepProgram:
    operations = [one for one in program.recording.operations if one.part != "evaluation"]
    return StepProgram(operations, program.rows, program.tokens)
