"""An experiment: recipes and methods in, runs through a scheduler, records out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from peft_methods.runs import reuse, tuning
from peft_methods.runs.detached import Detached
from peft_methods.runs.earlier import EarlierRuns
from peft_methods.runs.events import Event
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.isolation.marks import differs_when_fresh
from peft_methods.runs.late_predictions import LatePredictions
from peft_methods.runs.plan import RunGroup, longest_first, no_gpu_reason, with_more_seeds
from peft_methods.runs.preparations import (
    Preparations,
    with_prediction,
    within_limits,
    without_estimate,
)
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import Display, NullDisplay
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.record import Record, Status, record_without_result
from peft_methods.runs.record_reader import RecordReader
from peft_methods.runs.results import ArrivedRecords, Result, Results, read_predictions
from peft_methods.runs.scheduling import SessionDevices
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.runs.tracking.trackers import Tracking
from peft_methods.runs.tuning import Search
from peft_methods.utils.cache import cache_notice
from peft_methods.utils.errors import DataError, PeftMethodsError, PreparationTimedOut

MoreSeeds = Callable[[Results], Mapping[tuple[str, str], int]]


class Experiment:
    """Train every method of every recipe and collect the records.

    Nothing starts before `start`; `close` ends everything that runs. Runs that an earlier session
    finished are reused. `more_seeds` decides, from the results of all seeds so far, how many seeds
    a recipe's method should have; without it they have those of the recipe.
    """

    def __init__(
        self,
        tasks: Sequence[RunGroup],
        options: ExperimentOptions = ExperimentOptions(),  # noqa: B008 - cannot change
        display: Display = NullDisplay(),  # noqa: B008 - has no state
        more_seeds: MoreSeeds | None = None,
    ) -> None:
        # Several tests may ask for one method: its runs are still trained and counted once.
        self.tasks = tuple({task.name: task for task in tasks}.values())
        self.options, self.trials = options, options.trials
        self.preparations: dict[str, PreparedRecipe] = {}
        self.errors: dict[str, PeftMethodsError] = {}
        self._store = Store(options.results)
        self._store.prepare()
        self._earlier = EarlierRuns(self._store, options.save_models, fresh=options.fresh)
        self._reused_trials, self._set_aside = list[Record](), list[str]()
        self._devices = SessionDevices.chosen(options)
        self.device, self.workers = self._devices.device, self._devices.workers
        self.progress = Progress(display, workers=self.workers, groups=self.tasks)
        self._scheduler = self._devices.scheduler(self._store, options)
        new_worker = self._scheduler.executor.new_worker
        self._tracking = Tracking(options.trackers, options.results, new_worker)
        self._late = LatePredictions(new_worker, self._store, self._devices.device_name)
        for watcher in (self.progress, self._on_event, self._tracking, self._late):
            self._scheduler.watch(watcher)
        self._records = ArrivedRecords(self.tasks)
        self._searches, self._settled = dict[tuple[str, str], Search](), set[str]()
        self._more_seeds, self._began = more_seeds, time.monotonic()
        self._started = self._stopped = False

    def prepare(self, first: Sequence[RunSpec] = ()) -> None:
        """Check every recipe, and prefetch the runs `first`. Errors are kept, by recipe name."""
        waiting = {
            task.recipe.name: task.recipe
            for task in self.tasks
            if not (self._records.have_all(task) or self.needs_gpu(task))
        }
        parts = self._devices, self._earlier, self._scheduler, self.progress
        make = Preparations(self.options, *parts)
        for recipe in waiting.values():
            tasks = [task for task in self.tasks if task.recipe.name == recipe.name]
            try:
                made = make.of(recipe, tasks, first)
                self.preparations[recipe.name] = within_limits(made, tasks, self.options.fit)
            except DataError as error:
                self.errors[recipe.name] = error

    def start(self) -> None:
        """Prepare, then queue every run that can start. The others get records with the reason."""
        if self._started:
            return
        self._started = True
        self.progress.announce(self._devices.notes)
        records, unfit = RecordReader().records(self._store.folder)
        self._set_aside = self._store.set_aside(unfit)
        for task in filter(self.needs_gpu, self.tasks):
            self._give_up(task, "skipped", no_gpu_reason(task.recipe))
        waiting = [run for t in self.tasks if not self._records.have_all(t) for run in t.runs]
        # A guess at what to prefetch. Before tuning, the runs that will follow are unknown.
        count = 0 if self.trials else self.workers
        self.prepare(self._earlier.probably_first(waiting, records, count))
        runnable = [
            task for task in self.tasks if not self._records.have_all(task) and self._can_run(task)
        ]
        if self.trials:
            self.progress.announce_tuning(self.trials, runnable)
            runnable = self._tuned(runnable, self.trials)
        runnable = longest_first(runnable, self.preparations, self.workers)
        self._submit([run for task in runnable for run in task.runs])
        self.progress.announce_plan(runnable, gpus=self._scheduler.executor.capacity.gpus)

    def _can_run(self, task: RunGroup) -> bool:
        """Whether the recipe's check passed for this method; else store records with the reason."""
        error = self.errors.get(task.recipe.name)
        preparation = self.preparations.get(task.recipe.name)
        reason = preparation.unsupported.get(task.method.name) if preparation else None
        if isinstance(error, PreparationTimedOut):
            self._give_up(task, "timeout", str(error), stack=error.stack)
        elif error is not None:
            self._give_up(task, "failed", str(error))
        elif reason is not None:
            self._give_up(task, "skipped", reason)
        return error is None and reason is None and preparation is not None

    def _submit(self, runs: Iterable[RunSpec]) -> None:
        """Queue the runs that must be trained, in this order.

        The caller puts the longest first, so that none is left running alone at the end.
        """
        missing = [
            with_prediction(run, self.preparations)
            for run in runs
            if not self._earlier.reuse(run, self.preparations[run.recipe.name], self._scheduler)
        ]
        self._earlier.remove_checkpoints(missing)
        for run in missing:
            self.progress.plan([run], self.preparations[run.recipe.name])
        self._scheduler.submit(missing)

    def reusable(self) -> set[str]:
        """Return the keys of the runs that would be reused, prerequisites included.

        Empty with tuning, whose runs are not known yet.
        """
        if self.trials:
            return set()
        return self._earlier.keys([run for t in self.tasks for run in t.runs], self.preparations)

    def _tuned(self, tasks: Sequence[RunGroup], trials: int) -> list[RunGroup]:
        """Return the tasks with the hyperparameters that tuning found."""
        first_runs = {task.name: task.runs[0] for task in tasks}
        self._searches = tuning.tune(first_runs, trials, self._run_trials)
        return [self._with_tuned_runs(task) for task in tasks]

    def _with_tuned_runs(self, task: RunGroup) -> RunGroup:
        """Return the task with its tuned hyperparameters; unchanged if it was not tuned."""
        search = self._searches.get(task.name)
        if search is None:
            return task
        runs = tuple(tuning.with_tuned_settings(run, search) for run in task.runs)
        return replace(task, runs=runs)

    def _run_trials(self, runs: Sequence[RunSpec]) -> list[Result]:
        self._submit(runs)
        with self.progress.showing(last=False):
            return tuning.with_predictions(self._store, self._scheduler.wait(runs))

    def wait(self, task: RunGroup) -> list[Record]:
        """Return the records of a task's runs, in the order of its seeds.

        Where seeds are added, the first task of a recipe waits for the decision on all its methods.
        """
        if self._more_seeds is not None and task.recipe.name not in self._settled:
            self._settled.add(task.recipe.name)
            self._add_seeds(task.recipe.name, self._more_seeds)
        return self._wait(next(one for one in self.tasks if one.name == task.name))

    def _add_seeds(self, recipe: str, more_seeds: MoreSeeds) -> None:
        """Train further seeds of a recipe's methods until none is wanted or the time is over."""
        while True:
            tasks = [task for task in self.tasks if task.recipe.name == recipe]
            for task in tasks:
                self._wait(task)
            grown = with_more_seeds(tasks, more_seeds(self.results()))
            limit = self.options.adding_seconds or math.inf
            if not grown or self._stopped or time.monotonic() - self._began > limit:
                return
            self.tasks = tuple(grown.get(task.name, task) for task in self.tasks)
            self._records.expect(self.tasks)
            self.progress.expect(self.tasks)
            for task in tasks:
                longer = self._with_tuned_runs(grown.get(task.name, task))
                self._submit(longer.runs[len(task.runs) :])

    def _wait(self, task: RunGroup) -> list[Record]:
        task = self._with_tuned_runs(task)
        if not self._records.have_all(task):
            with self.progress.showing():
                self._scheduler.wait(task.runs)
        return self._records.of(task)

    def verify(self) -> bool:
        """Repeat one run in a fresh process. False if its results, kept in records, differ."""
        if not self._started or self._stopped:
            return True
        self.progress.show_activity("repeating a run in a fresh process")
        with self.progress.showing(last=False):
            marked = self._scheduler.verify()
        self._records.keep(marked)
        return not any(map(differs_when_fresh, marked))

    def predict(self) -> None:
        """Add estimates to new records of runs on GPUs, now that nothing is timed any more."""
        if not (self._stopped or self.options.no_estimates):
            with self.progress.showing(last=False):
                known, show = self._records.all(), self.progress.show_estimates
                self._records.keep(self._late.add_to(known, show))

    def prerequisite_records(self, task: RunGroup) -> list[Record]:
        """Return the records of the runs that a task's runs depend on, once these have ended."""
        return self._records.of_prerequisites(task)

    def needs_gpu(self, task: RunGroup) -> bool:
        """Whether the task's recipe is for GPUs and there is none."""
        return task.recipe.gpu and self.device == "cpu"

    def results(self) -> Results:
        """Return all records so far in the order of the tasks, prerequisites last, and notes."""
        records = self._records.all()
        predictions, unreadable = read_predictions(self._store, records)
        notes = [*self._notes(records), *unreadable, *self._tracking.warnings(), *self.untrained()]
        return Results(tuple(records), tuple(notes), predictions)

    def _notes(self, records: Sequence[Record]) -> list[str]:
        """Return the recipes' notes, and what tuning, reuse and the scheduler have to report."""
        recipes = {task.recipe.name: task.recipe for task in self.tasks}
        reused = [*(record for record in records if record.reused), *self._reused_trials]
        return [
            *(note for recipe in recipes.values() for note in recipe.notes),
            *tuning.tuning_notes(self._searches),
            *([reuse.reuse_note(reused)] if reused else []),
            *self._set_aside,
            *filter(None, [cache_notice()]),
            *self._earlier.warnings,
            *without_estimate(self.preparations, self.tasks, self.options.fit),
            *self._devices.notes,
            *self._scheduler.executor.notes,
            *self._scheduler.warnings,
            *self._late.notes,
        ]

    def detach(self) -> Detached:
        """Leave what was started to its executor, which continues after the session."""
        with self.progress.showing():
            return self._scheduler.detach()

    def stop(self) -> None:
        """End what runs and start nothing more; finished records are kept."""
        self._stopped = True
        self._scheduler.stop()

    def untrained(self) -> list[str]:
        """Return one line that names the runs without a record, if the session was ended early."""
        is_early = self._started and self._stopped
        return self._records.missing_note(self._store.folder) if is_early else []

    def track(self, tables: Mapping[str, tuple[Sequence[dict[str, Any]], str]]) -> None:
        """Log each recipe's comparison (a row a method, and its text). Wait for the trackers."""
        for recipe, (rows, text) in tables.items():
            self._tracking.log_table(recipe, rows, text)
        self.progress.show_activity(f"writing logs: {', '.join(self._tracking.trackers)}")
        with self.progress.showing(last=False):
            self._tracking.finish()

    def close(self) -> None:
        """End every process and remove scratch files."""
        self._tracking.close()
        self._scheduler.close()

    def _give_up(self, task: RunGroup, status: Status, reason: str, stack: str = "") -> None:
        for run in task.runs:
            record = record_without_result(run, status, reason, stack=stack)
            self._records.keep([record])
            self.progress.without_result(record)
            self._scheduler.store_here(record)

    def _on_event(self, event: Event) -> None:
        if (record := event.record) is not None:
            is_trial = event.run.role == "trial"
            self._reused_trials += [record] if record.reused and is_trial else []
            self._records.keep([] if is_trial else [record])
