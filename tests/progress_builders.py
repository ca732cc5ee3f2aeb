"""Runs that start and end as told, for displays of progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.events import Event
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.tasks.registry import with_task

PREPARATION = PreparedRecipe(
    {"class_counts": {"train": (80, 80), "validation": (15, 15), "test": (25, 25)}}, {}, 0.01, 1.0
)


def groups_of(recipe: Path | str, *methods: str, settings: Sequence[str] = ()) -> list[RunGroup]:
    """Return the runs of these methods."""
    loaded = with_task(load_recipe(str(recipe), settings))
    found = chosen_methods(loaded, list(methods))
    return [RunGroup(loaded, one, tuple(run_specs(loaded, one, "cpu"))) for one in found]


def ok(run: RunSpec, accuracy: float, seconds: float = 12.5, mib: float = 300) -> Record:
    """Return the record of a run that ended well."""
    metrics = {"accuracy": accuracy, "train_seconds": seconds, "peak_memory_bytes": mib * 2**20}
    return Record(run, "ok", "i", metrics=metrics)


def fill(progress: Progress, groups: Sequence[RunGroup]) -> None:
    """Two runs of the first method end well; one of the second fails and one is active."""
    (first, second), (third, fourth) = groups[0].runs, groups[1].runs
    for run in (first, second):
        progress(Event(run))
    progress(Event(first, record=ok(first, 0.9)))
    progress(Event(second, record=ok(second, 0.8, 13.5, 320)))
    for run in (third, fourth):
        progress(Event(run))
    progress(Event(third, record=record_without_result(third, "failed", "no <good>|reason")))
