"""Checks of recipes before their runs: kept ones, new ones, and those of a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.recipes.schema import Recipe
from peft_methods.runs import kept_checks
from peft_methods.runs.earlier import EarlierRuns
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.plan import RunGroup
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

        A dry run takes any kept result. Without one, it needs the model's config and no weights.
        """
        methods, is_dry = [task.method for task in tasks], self.options.dry_run
        nodes = None if self.options.trials else self.options.nodes
        keys = kept_checks.keys_of(recipe, methods, self.devices.device, self.devices.kind, nodes)
        kept = self.earlier.preparation(keys, tasks, even_if_incomplete=is_dry)
        if kept is not None:
            return kept
        self.progress.show_preparation(recipe, self.options.executor, is_dry=is_dry)
        with self.progress.showing(last=False):
            made = self.scheduler.prepare(recipe, methods, first)
        if is_dry:
            return self.earlier.with_recorded_weights(made, tasks)
        if keys is not None:
            kept_checks.keep(keys, made)
        return made
