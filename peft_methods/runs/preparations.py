"""Checks of recipes before their runs: kept ones, new ones, and those of a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from peft_methods.recipes.schema import Recipe
from peft_methods.runs import kept_checks
from peft_methods.runs.cost_model import expected_seconds
from peft_methods.runs.earlier import EarlierRuns
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.predicted import (
    MEMORY,
    SEVERAL_GPUS,
    Limits,
    Prediction,
    reason_to_leave_out,
)
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import SessionDevices
from peft_methods.runs.spec import RunSpec


@dataclass(frozen=True)
class Preparations:
    """Check recipes in a worker, unless a kept result shows that nothing is to be trained."""

    options: ExperimentOptions
    devices: SessionDevices
    earlier: EarlierRuns
    scheduler: Scheduler
    progress: Progress

    def of(
        self, recipe: Recipe, tasks: Sequence[RunGroup], first: Sequence[RunSpec]
    ) -> PreparedRecipe:
        """Check a recipe for its tasks, and prefetch the runs `first`. Raises `DataError`.

        A dry run takes any kept result. Without one, or to predict runs that the kept one does not,
        it needs the model's config and no weights. Runs over several GPUs are not predicted.
        """
        methods, is_dry = [task.method for task in tasks], self.options.dry_run
        engines = {task.method.name: task.runs[0].engine for task in tasks}
        nodes = None if self.options.trials else self.options.nodes
        device, kind = self.devices.device, self.devices.kind
        keys = kept_checks.keys_of(recipe, methods, device, kind, nodes, engines=engines)
        kept = self.earlier.preparation(keys, tasks, even_if_incomplete=is_dry)
        wanted = self.options.predicts and recipe.budget.gpus == 1
        if kept is not None and (kept.is_predicted or not wanted):
            return kept
        self.progress.show_preparation(recipe, self.options.executor, is_dry=is_dry)
        with self.progress.showing(last=False):
            made = self.scheduler.prepare(recipe, methods, first, engines=engines if wanted else {})
        if is_dry and keys is not None and kept is not None:
            made = replace(kept, predicted=made.predicted, is_predicted=True)
            kept_checks.keep(keys, made)
            return made
        if is_dry:
            return self.earlier.with_recorded_weights(made, tasks)
        if keys is not None:
            kept_checks.keep(keys, made)
        return made


def within_limits(
    prepared: PreparedRecipe, tasks: Sequence[RunGroup], limits: Limits
) -> PreparedRecipe:
    """Return the check with the methods that would exceed a limit among the unsupported ones.

    `tasks` are those of the recipe. Where the time has no estimate, it is the expected one. Runs
    over several GPUs are left in.
    """
    if not limits or any(task.recipe.budget.gpus > 1 for task in tasks):
        return prepared
    unsupported = dict(prepared.unsupported)
    for task in tasks:
        prediction = prepared.predicted.get(task.method.name, Prediction())
        seconds = expected_seconds(task.runs[0], prepared)
        if reason := reason_to_leave_out(prediction, limits, seconds):
            unsupported.setdefault(task.method.name, reason)
    return replace(prepared, unsupported=unsupported)


def without_estimate(
    preparations: Mapping[str, PreparedRecipe], tasks: Sequence[RunGroup], limits: Limits
) -> list[str]:
    """Return notes that name the runs for which a limit could not be checked."""
    able = [
        task
        for task in tasks
        if (one := preparations.get(task.recipe.name)) and task.method.name not in one.unsupported
    ]
    several = ["-".join(task.name) for task in able if task.recipe.budget.gpus > 1]
    others = [
        "-".join(task.name)
        for task in able
        if task.recipe.budget.gpus == 1
        and task.method.name not in preparations[task.recipe.name].predicted
    ]
    written = ",".join(f"{name}={limit.written}" for name, limit in limits.items())
    notes = []
    if limits and several:
        notes.append(f"{written} was not checked for {', '.join(several)}: {SEVERAL_GPUS}")
    if MEMORY in limits and others:
        notes.append(
            f"memory={limits[MEMORY].written} was not checked for {', '.join(others)}: there is no "
            "estimate of the memory"
        )
    return notes


def with_prediction(run: RunSpec, preparations: Mapping[str, PreparedRecipe]) -> RunSpec:
    """Return the run with what was predicted for its method.

    Nothing was for a method with tuned hyperparameters, nor for runs that are not compared. The
    memory is that of a GPU: runs on a CPU have no prediction.
    """
    if run.role != "main" or run.tuning is not None or run.device == "cpu":
        return run
    return replace(run, predicted=preparations[run.recipe.name].predicted.get(run.method.name))
