"""The estimates of every method of a question, with what fits and what explains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peft_methods.estimation.case import LENGTH_STEP, MOST_BATCH, Case, used_engine
from peft_methods.estimation.estimator import Device, Estimator, RunMemory, StepTime
from peft_methods.estimation.explanations import Seen, explanations, logits_bytes
from peft_methods.estimation.fitting import verdict_of
from peft_methods.estimation.gpu import Gpu
from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.question import DEVICE, Question
from peft_methods.estimation.results import Fit, Interval, MethodEstimate
from peft_methods.estimation.rows import UNKNOWN_LENGTHS, train_rows, with_own_rows
from peft_methods.estimation.ways import ways_to_fit
from peft_methods.methods.base import Method
from peft_methods.methods.row_length import too_long
from peft_methods.models import loading
from peft_methods.models.padding import embedding_rows
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.training.distributed.support import unsupported
from peft_methods.utils.errors import ModelError, PeftMethodsError, first_line

AMPERE = (8, 0)  # the compute capability of the first GPUs with bf16 and TF32
NO_LIMIT = 131_072  # tokens that are tried for models without a limit
UNKNOWN_ROWS = "the number of training rows is unknown (data.train), so there is no time"
Progress = Callable[[int, int, str], None]  # methods done, all methods, the next one's name


@dataclass(frozen=True)
class Base:
    """What is known of the model before any method: see `loading.LoadedModel`."""

    loaded: loading.LoadedModel
    longest: int
    vocabulary: int


def silent(done: int, count: int, name: str) -> None:
    """Show no progress."""


def estimates_of(
    question: Question, gpu: Gpu | None, estimator: Estimator, progress: Progress = silent
) -> tuple[tuple[MethodEstimate, ...], tuple[str, ...]]:
    """Return an estimate for each method, and notes on all of them.

    A method that cannot be estimated has its reason as `problem`. Raises `ModelError` or
    `DataError` where no method can be.
    """
    question = replace(question, recipe=with_own_rows(question.recipe))
    base = _base(question)
    # What is asked about is training from published weights, though none are read.
    pretrained = replace(question.recipe.model, weights="pretrained")
    as_trained = replace(question.recipe, model=pretrained)
    found: list[MethodEstimate] = []
    scene: dict[str, Seen] = {}
    for number, method in enumerate(question.methods):
        progress(number, len(question.methods), method.name)
        remembering = _Remembering(estimator)
        longest = base.longest - method.virtual_tokens
        case = Case(as_trained, method, question.engine, remembering, gpu, longest)
        one = _estimate(case, base)
        found.append(one)
        if one.memory is not None:
            flops, logits = case.program.flops, logits_bytes(case.run.program, base.vocabulary)
            has_checkpointing = question.recipe.budget.gradient_checkpointing
            scene[method.name] = Seen(
                method.info, one, one.memory, flops, logits, has_checkpointing
            )
    progress(len(question.methods), len(question.methods), "")
    explained = [
        replace(one, explanations=explanations(scene[one.method], scene))
        if one.method in scene
        else one
        for one in found
    ]
    return tuple(explained), (*question.notes, *_remarks(question, gpu))


def _remarks(question: Question, gpu: Gpu | None) -> Iterator[str]:
    recipe, engine = question.recipe, question.engine
    others = {one.title: used_engine(engine, one) for one in question.methods}
    for name in sorted({*others.values()} - {engine}):
        titles = "; ".join(title for title, other in others.items() if other == name)
        yield f"estimated for the {name} engine, since {engine} cannot replay such steps: {titles}"
    if gpu is not None and gpu.device is not None:
        if gpu.note:
            yield gpu.note
        is_older = not gpu.is_host and gpu.device.capability < AMPERE
        if recipe.budget.precision in {"bf16", "tf32"} and is_older:
            yield (
                f"{gpu.name} has no units for {recipe.budget.precision}, which GPUs have from "
                f"compute capability 8.0 on: train there in fp16 (--precision fp16)"
            )
        if train_rows(recipe) is None:
            yield UNKNOWN_ROWS
        elif recipe.data.token_lengths is None and recipe.budget.padding != "fixed":
            yield UNKNOWN_LENGTHS


def _base(question: Question) -> Base:
    """Build the model without weights. Raises `ModelError`; it names the model as the user did."""
    recipe, task = question.recipe, TASKS[question.recipe.task]
    names = task.random_label_names(recipe.data)
    try:
        loaded = loading.load(recipe.model, task.head, names, device=loading.META)
    except ModelError as error:
        text = str(error.args[0]).replace(repr(recipe.model.source), repr(question.model))
        raise ModelError(text, setting=error.setting) from None
    loaded.check_length(recipe.data.max_length)
    limit = loaded.longest
    return Base(loaded, limit or NO_LIMIT, embedding_rows(loaded.model.config))


def _estimate(case: Case, base: Base) -> MethodEstimate:
    """Estimate a method. Whatever goes wrong in it is the `problem` of its row."""
    method, recipe = case.method, case.recipe
    empty = MethodEstimate(method.name, method.title, case.batch_size, case.length)
    problem = unsupported(method, base.loaded.architecture, DEVICE, recipe.budget)
    problem = problem or too_long(base.loaded.longest, recipe.data.max_length, method)
    if problem:
        return replace(empty, problem=problem)
    try:
        run = case.run
        return replace(
            empty,
            trainable=run.trainable,
            total=run.total,
            checkpoint_bytes=run.checkpoint_bytes,
            memory=run.memory,
            time=case.time,
            fit=None if case.gpu is None or case.gpu.is_host else _fit(case, case.gpu),
        )
    except PeftMethodsError as error:
        return replace(empty, problem=str(error))
    except Exception as error:  # a method or a library may fail in any way; the others go on
        return replace(empty, problem=f"it cannot be estimated ({first_line(error)})")


def _fit(case: Case, gpu: Gpu) -> Fit:
    rows, length = case.largest_batch(), case.largest_length()
    return Fit(
        gpu.memory_bytes,
        verdict_of(case.run.memory, gpu.memory_bytes),
        rows,
        length,
        MOST_BATCH,
        case.longest - case.longest % LENGTH_STEP,
        () if case.fits else ways_to_fit(case, rows, length),
    )


class _Remembering:
    """An estimator that estimates the same run once. It is for one method: programs are large."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._known = dict[str, RunMemory]()

    def memory(self, recipe: Recipe, method: Method, **settings: Any) -> RunMemory:
        key = repr((recipe.model, recipe.data, recipe.budget, method, sorted(settings.items())))
        if key not in self._known:
            self._known[key] = self._estimator.memory(recipe, method, **settings)
        return self._known[key]

    def step(self, program: StepProgram, device: Device, **how: Any) -> StepTime:
        return self._estimator.step(program, device, **how)

    def epoch(
        self, steps: Mapping[int, Interval], lengths: Sequence[int], recipe: Recipe
    ) -> Interval:
        return self._estimator.epoch(steps, lengths, recipe)

    def device(self, name: str) -> Device:
        return self._estimator.device(name)
