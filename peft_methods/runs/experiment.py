"""An experiment: recipes and methods in, runs through a scheduler, records out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft_methods.profiling.environment import find_device, usable_cores
from peft_methods.runs import reuse, tuning
from peft_methods.runs.cost_model import total_seconds
from peft_methods.runs.events import Event
from peft_methods.runs.executors.devices import default_workers
from peft_methods.runs.limits import DEFAULT_RETRIES
from peft_methods.runs.local_scheduler import local_scheduler
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.progress.display import Display, NullDisplay
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.record import Record, Status, record_without_result
from peft_methods.runs.reuse import ReusableRuns
from peft_methods.runs.spec import PreparedRecipe, RunSpec
from peft_methods.runs.store import Store, StoreError
from peft_methods.runs.tracking.trackers import Tracking
from peft_methods.runs.tuning import Search
from peft_methods.tasks.base import Predictions
from peft_methods.utils.errors import DataError, PeftMethodsError, PreparationTimedOut

DEFAULT_RESULTS = Path(".peft/results")
RunKey = tuple[str, str, int, bool]  # recipe, method, seed, is it a prerequisite


@dataclass(frozen=True)
class ExperimentOptions:
    """How an experiment is run. Nothing here changes what a run computes.

    `timeout` is in seconds a run; `trials` a method are tuned first; `fresh` trains everything
    again; `checkpoint` saves every epoch; `trackers` are names of experiment trackers.
    """

    results: Path = DEFAULT_RESULTS
    save_models: Path | None = None
    workers: int | None = None
    trials: int | None = None
    fresh: bool = False
    timeout: float | None = None
    retries: int = DEFAULT_RETRIES
    checkpoint: bool = False
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """Records with the notes of their session, and predictions by the records' fingerprints."""

    records: tuple[Record, ...]
    notes: tuple[str, ...]
    predictions: Mapping[str, Predictions]


class Experiment:
    """Train every method of every recipe and collect the records.

    Nothing starts before `start`; `close` ends everything that runs. Runs that an earlier session
    finished are reused.
    """

    def __init__(
        self,
        tasks: Sequence[RunGroup],
        options: ExperimentOptions = ExperimentOptions(),
        display: Display = NullDisplay(),  # noqa: B008 - has no state
    ) -> None:
        self.tasks, self.options, self.trials = tuple(tasks), options, options.trials
        self.preparations: dict[str, PreparedRecipe] = {}
        self.errors: dict[str, PeftMethodsError] = {}
        self._store = Store(options.results)
        self._store.prepare()
        self._earlier = None if options.fresh else ReusableRuns(self._store, options.save_models)
        self._reused_trials: list[Record] = []
        self._set_aside: list[str] = []
        self.device = find_device()
        self.workers = options.workers or default_workers(self.device, usable_cores())
        self._progress = Progress(display, workers=self.workers)
        self._scheduler = local_scheduler(
            self._store,
            self.device,
            workers=self.workers,
            save_models=options.save_models,
            timeout=options.timeout,
            retries=options.retries,
            checkpoint=options.checkpoint,
        )
        self._tracking = Tracking(
            options.trackers, options.results, self._scheduler.executor.new_worker
        )
        for watcher in (self._progress, self._on_event, self._tracking):
            self._scheduler.watch(watcher)
        self._records: dict[RunKey, Record] = {}
        self._searches: dict[tuple[str, str], Search] = {}
        self._started = self._stopped = False

    def prepare(self, first: RunSpec | None = None) -> None:
        """Check data and model of every recipe. Errors are kept in `errors`, by recipe name.

        `first` is prefetched meanwhile.
        """
        waiting = {
            task.recipe.name: task.recipe
            for task in self.tasks
            if not (self._has_ended(task) or self.needs_gpu(task))
        }
        for recipe in waiting.values():
            self._progress.doing(f"{recipe.name}: reading data and model")
            methods = [task.method for task in self.tasks if task.recipe.name == recipe.name]
            try:
                with self._progress.showing(last=False):
                    preparation = self._scheduler.prepare(recipe, methods, first)
                self.preparations[recipe.name] = preparation
            except DataError as error:
                self.errors[recipe.name] = error

    def start(self) -> None:
        """Prepare, then queue every run that can start. The others get records with the reason."""
        if self._started:
            return
        self._started = True
        records, unfit = self._store.records()
        self._set_aside = self._store.set_aside(unfit)
        for task in self.tasks:
            if self.needs_gpu(task):
                reason = f"recipe {task.recipe.name!r} needs an NVIDIA GPU and none is visible"
                self._give_up(task, "skipped", reason)
        self.prepare(
            self._probably_first({record.key for record in records if record.status == "ok"})
        )
        runnable = [
            task for task in self.tasks if not self._has_ended(task) and self._can_run(task)
        ]
        if self.trials:
            runnable = self._tuned(runnable, self.trials)
        longest_first = sorted(runnable, key=self._expected_seconds, reverse=True)
        self._submit([run for task in longest_first for run in task.runs])

    def _can_run(self, task: RunGroup) -> bool:
        """Whether the recipe's check passed for this method; otherwise store records that say why."""
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

    def _probably_first(self, known: Collection[str]) -> RunSpec | None:
        """Return the first run without prerequisites and without a record. A wrong guess is harmless.

        Before tuning, the runs that will follow are unknown.
        """
        if self.trials:
            return None
        waiting = (run for t in self.tasks if not self._has_ended(t) for run in t.runs)
        every = (one for run in waiting for one in (*run.stages, run))
        return next(
            (
                run
                for run in every
                if not run.stages and (self._earlier is None or run.key not in known)
            ),
            None,
        )

    def _submit(self, runs: Iterable[RunSpec]) -> None:
        """Queue the runs that must be trained, in this order.

        The caller puts the longest first, so that none is left running alone at the end.
        """
        missing = [run for run in runs if not self._reuse(run)]
        if self._earlier is None:
            for run in itertools.chain.from_iterable((*one.stages, one) for one in missing):
                self._store.remove_checkpoints(run.key)
        for run in missing:
            self._progress.plan([run], self.preparations[run.recipe.name])
        self._scheduler.submit(missing)

    def _reuse(self, run: RunSpec) -> bool:
        """Whether an earlier session trained the run. Its prerequisites are reused even if not."""
        if self._earlier is None:
            return False
        found = {}
        for one in (*run.stages, run):
            record = self._earlier.record_of(one, self.preparations[run.recipe.name])
            found[one.key] = record is not None and self._scheduler.reuse(one, record)
        return found[run.key]

    def reusable(self) -> set[str]:
        """Return the keys of the runs that would be reused, prerequisites included.

        Empty with tuning, whose runs are not known yet.
        """
        if self._earlier is None or self.trials:
            return set()
        runs = [
            (one, self.preparations[run.recipe.name])
            for task in self.tasks
            for run in task.runs
            if run.recipe.name in self.preparations
            for one in (*run.stages, run)
        ]
        return {
            run.key
            for run, preparation in runs
            if self._earlier.record_of(run, preparation) is not None
        }

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
        return replace(
            task, runs=tuple(tuning.with_tuned_settings(run, search) for run in task.runs)
        )

    def _run_trials(self, runs: Sequence[RunSpec]) -> list[Record]:
        self._submit(runs)
        with self._progress.showing(last=False):
            return self._scheduler.wait(runs)

    def wait(self, task: RunGroup) -> list[Record]:
        """Return the records of a task's runs, in the order of its seeds."""
        task = self._with_tuned_runs(task)
        if not self._has_ended(task):
            with self._progress.showing():
                self._scheduler.wait(task.runs)
        return [self._records[key] for key in _keys(task) if key in self._records]

    def prerequisite_records(self, task: RunGroup) -> list[Record]:
        """Return the records of the runs that a task's runs depend on, once these have ended."""
        keys = [
            (stage.recipe.name, stage.method.name, stage.seed, True)
            for stage in task.runs[0].stages
        ]
        return [self._records[key] for key in keys if key in self._records]

    def needs_gpu(self, task: RunGroup) -> bool:
        """Whether the task's recipe is for GPUs and there is none."""
        return task.recipe.gpu and self.device == "cpu"

    def results(self) -> Results:
        """Return all records so far in the order of the tasks, prerequisites last, and the notes."""
        asked = [key for task in self.tasks for key in _keys(task)]
        records = [self._records[key] for key in asked if key in self._records]
        records += [record for record in self._records.values() if record.is_source]
        predictions, unreadable = self._predictions(records)
        notes = [*self._notes(records), *unreadable, *self._tracking.warnings(), *self.untrained()]
        return Results(tuple(records), tuple(notes), predictions)

    def _notes(self, records: Sequence[Record]) -> list[str]:
        """Return the recipes' notes, and what tuning, reuse and the scheduler have to report."""
        recipes = {task.recipe.name: task.recipe for task in self.tasks}
        reused = [*(record for record in records if record.reused), *self._reused_trials]
        return [
            *(note for recipe in recipes.values() for note in recipe.notes),
            *(f"tuned: {tuning.tuning_note(search)}" for search in self._searches.values()),
            *([reuse.reuse_note(reused)] if reused else []),
            *self._set_aside,
            *(self._earlier.warnings if self._earlier else []),
            *self._scheduler.warnings,
        ]

    def stop(self) -> None:
        """End what runs and start nothing more; finished records are kept."""
        self._stopped = True
        self._scheduler.stop()

    def untrained(self) -> list[str]:
        """Return one line that names the runs without a record in a session that was ended early."""
        if not (self._started and self._stopped):
            return []
        missing: dict[str, int] = {}
        for task in self.tasks:
            seeds = [str(key[2]) for key in _keys(task) if key not in self._records]
            if seeds:
                plural = "s" * (len(seeds) > 1)
                missing[f"{task.method.title} seed{plural} {', '.join(seeds)}"] = len(seeds)
        if not missing:
            return []
        number = sum(len(task.runs) for task in self.tasks)
        return [
            f"Not trained, since the session was ended early: {'; '.join(missing)} "
            f"({sum(missing.values())} of {number} runs). The same command continues from here: "
            f"finished runs are kept in {self._store.folder}."
        ]

    def _predictions(self, records: Iterable[Record]) -> tuple[dict[str, Predictions], list[str]]:
        """Return predictions of finished runs by fingerprint, and a line for each unreadable file."""
        predictions: dict[str, Predictions] = {}
        unreadable = []
        for record in records:
            try:
                found = self._store.read_predictions(record) if record.status == "ok" else None
            except StoreError as error:
                unreadable.append(
                    f"{error} {record.method_name} seed {record.seed} is in no group."
                )
            else:
                predictions |= {} if found is None else {record.identity: found}
        return predictions, unreadable

    def track(self, tables: Mapping[str, tuple[Sequence[dict[str, Any]], str]]) -> None:
        """Log each recipe's comparison (a row a method, and its text), and wait for the trackers."""
        for recipe, (rows, text) in tables.items():
            self._tracking.log_table(recipe, rows, text)
        self._progress.doing(f"writing logs: {', '.join(self._tracking.trackers)}")
        with self._progress.showing(last=False):
            self._tracking.finish()

    def close(self) -> None:
        """End every process and remove scratch files."""
        self._tracking.close()
        self._scheduler.close()

    def _expected_seconds(self, task: RunGroup) -> float:
        return total_seconds(task.runs, self.preparations, self.workers)

    def _has_ended(self, task: RunGroup) -> bool:
        return all(key in self._records for key in _keys(task))

    def _give_up(self, task: RunGroup, status: Status, reason: str, stack: str = "") -> None:
        records = [record_without_result(run, status, reason, stack=stack) for run in task.runs]
        self._keep(records)
        for record in records:
            self._scheduler.store_here(record)

    def _on_event(self, event: Event) -> None:
        record = event.record
        if record is not None:
            self._reused_trials += [record] if record.reused and event.run.trial else []
            self._keep([] if event.run.trial else [record])

    def _keep(self, records: Iterable[Record]) -> None:
        for record in records:
            key = record.recipe_name, record.method_name, record.seed, record.is_source
            self._records[key] = record


def _keys(task: RunGroup) -> list[RunKey]:
    return [(task.recipe.name, task.method.name, run.seed, False) for run in task.runs]
