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
from peft_methods.runs.predicted import MEMORY, Limits, Prediction, reason_to_leave_out
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
        it needs the model's config and no weights.
        """
        methods, is_dry = [task.method for task in tasks], self.options.dry_run
        nodes = None if self.options.trials else self.options.nodes
        keys = kept_checks.keys_of(recipe, methods, self.devices.device, self.devices.kind, nodes)
        kept = self.earlier.preparation(keys, tasks, even_if_incomplete=is_dry)
        wanted = self.options.predicts(self.devices.device)
        if kept is not None and (kept.predicted or not (wanted and is_dry)):
            return kept
        self.progress.show_preparation(recipe, self.options.executor, is_dry=is_dry)
        with self.progress.showing(last=False):
            engine = tasks[0].runs[0].engine if wanted else ""
            made = self.scheduler.prepare(recipe, methods, first, predicted_engine=engine)
        if is_dry and kept is not None:
            return replace(kept, predicted=made.predicted)
        if is_dry:
            return self.earlier.with_recorded_weights(made, tasks)
        if keys is not None:
            kept_checks.keep(keys, made)
        return made


def within_limits(
    prepared: PreparedRecipe, tasks: Sequence[RunGroup], limits: Limits
) -> PreparedRecipe:
    """Return the check with the methods that would exceed a limit among the unsupported ones.

    `tasks` are those of the recipe. Where the time has no estimate, it is the expected one.
    """
    if not limits:
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
    """Return a note that names the runs for which a limit on memory could not be checked."""
    known = [task for task in tasks if task.recipe.name in preparations and MEMORY in limits]
    names = [
        "-".join(task.name)
        for task in known
        if task.method.name not in preparations[task.recipe.name].predicted
        and task.method.name not in preparations[task.recipe.name].unsupported
    ]
    if not names:
        return []
    return [
        f"memory={limits[MEMORY].written} was not checked for {', '.join(names)}: there is no "
        "estimate of the memory"
    ]


def with_prediction(run: RunSpec, preparations: Mapping[str, PreparedRecipe]) -> RunSpec:
    """Return the run with what was predicted for its method.

    Nothing was for a method with tuned hyperparameters, nor for runs that are not compared. The
    memory is that of a GPU: runs on a CPU have no prediction.
    """
    if run.role != "main" or run.tuning is not None or run.device == "cpu":
        return run
    return replace(run, predicted=preparations[run.recipe.name].predicted.get(run.method.name))
