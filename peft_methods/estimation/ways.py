"""What would make a run fit into a GPU, and what it costs in time: every way is estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from peft_methods.estimation import question
from peft_methods.estimation.case import LENGTH_STEP, Case
from peft_methods.estimation.results import Way
from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.utils.errors import PeftMethodsError

SHORTEST = 16  # tokens; shorter rows are no way out
CHECKPOINTING = "budget.gradient_checkpointing = true"


def ways_to_fit(case: Case, largest_batch: int, largest_length: int) -> tuple[Way, ...]:
    """Return the changes that make the run fit, the fastest first; empty if none does.

    Changes are combined only if none is enough alone. Shorter rows come last, since they change
    what is learned.
    """
    alone = [*_found(case, _alone(case, largest_batch))]
    enough = alone or [*_found(case, _combined(case))]
    shorter = [*_found(case, _shorter(case, largest_length))]
    return (*sorted(enough, key=_price), *shorter)


def _price(way: Way) -> float:
    """Return what sorts ways by their time; those of an unknown time come last."""
    return math.inf if way.time_ratio is None else way.time_ratio


Change = tuple[str, Case]  # for people, and the changed run


def _found(case: Case, changes: Iterator[Change]) -> Iterator[Way]:
    """Yield the changes that make the run fit. Those that cannot be are left out."""
    for what, other in changes:
        try:
            if other.fits:
                yield _way(case, what, other)
        except PeftMethodsError:
            continue


def _way(case: Case, what: str, other: Case) -> Way:
    by_flops = case.time is None or other.time is None
    if case.time is None or other.time is None:
        ratio = other.flops_a_row / case.flops_a_row if case.flops_a_row else None
    else:
        ratio = other.time.train_seconds.expected / case.time.train_seconds.expected
    changed = other.method.name if other.method is not case.method else ""
    return Way(what, other.needed, _settings(case, other), changed, ratio, by_flops)


def _settings(case: Case, other: Case) -> tuple[str, ...]:
    """Return the fields of the recipe that differ, as KEY=VALUE."""
    mine, its = case.recipe, other.recipe
    fields = {
        "budget.batch_size": (mine.budget.batch_size, its.budget.batch_size),
        "budget.gradient_accumulation": (
            mine.budget.gradient_accumulation,
            its.budget.gradient_accumulation,
        ),
        "budget.gradient_checkpointing": (
            mine.budget.gradient_checkpointing,
            its.budget.gradient_checkpointing,
        ),
        "data.max_length": (mine.data.max_length, its.data.max_length),
    }
    return tuple(f"{name}={str(new).lower()}" for name, (old, new) in fields.items() if old != new)


def _alone(case: Case, largest_batch: int) -> Iterator[Change]:
    if not case.recipe.budget.gradient_checkpointing:
        yield CHECKPOINTING, _checkpointed(case)
    yield from _accumulated(case, largest_batch)
    yield from _quantized(case)
    yield from _with_smaller_state(case)


def _combined(case: Case) -> Iterator[Change]:
    """Yield combinations: checkpointing with smaller batches, and both for other methods.

    These are over quantised weights, or with a smaller state of the optimizer.
    """
    for name, start in (("", case), *_quantized(case), *_with_smaller_state(case)):
        if start.recipe.budget.gradient_checkpointing:
            continue
        less, words = _checkpointed(start), f"{name}, {CHECKPOINTING}" if name else CHECKPOINTING
        if name and _fits(less):
            yield words, less
        elif rows := _largest_batch(less):
            for what, other in _accumulated(less, rows):
                yield f"{words}, {what}", other


def _fits(case: Case) -> bool:
    try:
        return case.fits
    except PeftMethodsError:
        return False


def _largest_batch(case: Case) -> int:
    try:
        return case.largest_batch()
    except PeftMethodsError:
        return 0


def _checkpointed(case: Case) -> Case:
    return case.with_recipe(question.with_checkpointing(case.recipe))


def _accumulated(case: Case, largest_batch: int) -> Iterator[Change]:
    """Yield the largest batch that fits and divides the batch: the optimizer step is the same."""
    batch, steps = case.batch_size, case.recipe.budget.gradient_accumulation
    rows = next((n for n in range(min(largest_batch, batch - 1), 0, -1) if batch % n == 0), 0)
    if rows:
        times = batch // rows * steps
        what = f"budget.batch_size = {rows} with budget.gradient_accumulation = {times}"
        yield what, case.with_recipe(question.with_batch(case.recipe, rows, times))


def _shorter(case: Case, largest_length: int) -> Iterator[Change]:
    length = largest_length - largest_length % LENGTH_STEP
    if SHORTEST <= length < case.length:
        what = f"data.max_length = {length}"
        yield what, case.with_recipe(question.with_length(case.recipe, length))


def _quantized(case: Case) -> Iterator[Change]:
    """Yield the method over 4-bit weights that is the nearest to the case's."""
    if case.method.info.quantization is not None:
        return
    other = _quantized_method(case)
    if other is not None:
        yield f"the method {other.name}", replace(case, method=other)


def _quantized_method(case: Case) -> Method | None:
    names = [name for name in METHODS if METHODS[name].info.quantization == "nf4"]
    own = [n for n in names if METHODS[n].info.unquantized_counterpart == case.method.name]
    return _first_of(case, (own or names)[:1])


def _with_smaller_state(case: Case) -> Iterator[Change]:
    """Yield the method that trains all weights too, and whose optimizer has its state in 8 bits."""
    mine = case.method.info
    names = [
        name
        for name in METHODS
        if (its := METHODS[name].info).scope == mine.scope == "all"
        and (mine.optimizer, its.optimizer) == ("adamw", "adamw_8bit")
    ]
    if (other := _first_of(case, names)) is not None:
        yield f"the method {other.name}", replace(case, method=other)


def _first_of(case: Case, names: Iterable[str]) -> Method | None:
    """Return the first of these methods whose settings are complete, or None."""
    for name in names:
        section = case.recipe.methods.get(name, {})
        if not METHODS.missing(name, section, case.recipe):
            return METHODS.create(name, section, case.recipe.name, case.recipe)
    return None
