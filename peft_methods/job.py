"""One comparison in the making: recipes and methods in, cells through an executor, records out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods import resuming, tuning
from peft_methods.cells import Cell, Preparation
from peft_methods.comparing import Comparison, Row
from peft_methods.environment import find_device, usable_cores
from peft_methods.errors import DataError, PeftMethodsError, TookTooLong
from peft_methods.execution.display import Display, Nowhere
from peft_methods.execution.estimating import total_seconds
from peft_methods.execution.events import Event
from peft_methods.execution.limits import DEFAULT_RETRIES
from peft_methods.execution.local import LocalExecutor
from peft_methods.execution.progress import Progress
from peft_methods.execution.tracking import Tracking
from peft_methods.metrics import METRICS
from peft_methods.quality import Predictions
from peft_methods.records import Record, Status, without_result
from peft_methods.resuming import Earlier
from peft_methods.store import Store, StoreError
from peft_methods.tasks import Task, default_workers, threads_of_a_cell
from peft_methods.tuning import Search

DEFAULT_RESULTS = ".peft/results"


def _means(row: Row) -> dict[str, float | None]:
    return {name: row.figures[name].mean if name in row.figures else None for name in METRICS}


class Job:
    """Runs tasks and gathers their records. Nothing starts before `start`; `close` ends all that runs.

    What an earlier run finished is not trained again, unless `fresh`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        results: Path = Path(DEFAULT_RESULTS),
        save_models: Path | None = None,
        workers: int | None = None,
        trials: int | None = None,
        fresh: bool = False,
        timeout: float | None = None,
        retries: int = DEFAULT_RETRIES,
        checkpoint: bool = False,
        trackers: Sequence[str] = (),
        display: Display = Nowhere(),  # noqa: B008  # has no state
    ) -> None:
        self.tasks, self.trials = tuple(tasks), trials
        self.preparations: dict[str, Preparation] = {}
        self.errors: dict[str, PeftMethodsError] = {}
        self._store = Store(results)
        self._store.prepare()
        self._earlier = None if fresh else Earlier(self._store, save_models)
        self._reused_trials: list[Record] = []
        self._set_aside: list[str] = []
        device, cores = find_device(), usable_cores()
        self.workers = workers or default_workers(device, cores)
        self._progress = Progress(display, workers=self.workers)
        self._executor = LocalExecutor(
            self._store,
            device,
            workers=self.workers,
            threads=threads_of_a_cell(device, cores, self.workers),
            save_models=save_models,
            timeout=timeout,
            retries=retries,
            checkpoint=checkpoint,
        )
        self._tracking = Tracking(trackers, results, self._executor.new_worker)
        self._executor.watch(self._progress)
        self._executor.watch(self._heard)
        self._executor.watch(self._tracking)
        self._records: dict[tuple[str, str, int, bool], Record] = {}
        self._searches: dict[tuple[str, str], Search] = {}
        self._started = self._stopped = False

    def prepare(self, first: Cell | None = None) -> None:
        """Check data and model of every recipe; what is wrong is kept in `errors` by recipe. `first` is loaded ahead meanwhile."""
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
                    self.preparations[recipe.name] = self._executor.prepare(recipe, methods, first)
            except DataError as error:
                self.errors[recipe.name] = error

    def start(self) -> None:
        """Prepare, then queue every cell that can run; the others get their records with the reason. Once."""
        if self._started:
            return
        self._started = True
        records, unfit = self._store.records()
        self._set_aside = self._store.set_aside(unfit)
        for task in self.tasks:
            if self.needs_gpu(task):
                self._give_up(
                    task,
                    "skipped",
                    f"recipe {task.recipe.name!r} needs an NVIDIA GPU and none is visible",
                )
        self.prepare(
            self._probably_first({record.key for record in records if record.status == "ok"})
        )
        runnable = []
        for task in self.tasks:
            if self._has_ended(task):
                continue
            error, preparation = (
                self.errors.get(task.recipe.name),
                self.preparations.get(task.recipe.name),
            )
            reason = preparation.unsupported.get(task.method.name) if preparation else None
            if isinstance(error, TookTooLong):
                self._give_up(task, "timeout", str(error), stack=error.stack)
            elif error is not None:
                self._give_up(task, "failed", str(error))
            elif reason is not None:
                self._give_up(task, "skipped", reason)
            elif preparation is not None:
                runnable.append(task)
        if self.trials:
            runnable = self._tuned(runnable, self.trials)
        self._submit(
            [
                cell
                for task in sorted(runnable, key=self._expected_seconds, reverse=True)
                for cell in task.cells
            ]
        )

    def _probably_first(self, known: Collection[str]) -> Cell | None:
        """The first cell without stages of its own that no record seems to be of; a wrong guess costs a process, no figure.

        Before tuning nobody knows which cells there will be.
        """
        cells = (
            one
            for task in self.tasks
            if not self._has_ended(task)
            for cell in task.cells
            for one in (*cell.stages, cell)
        )
        free = (
            cell
            for cell in cells
            if not cell.stages and (self._earlier is None or cell.key not in known)
        )
        return None if self.trials else next(free, None)

    def _submit(self, cells: Iterable[Cell]) -> None:
        """Queue what must be trained, in this order: with the longest first there is no straggler at the end."""
        missing = [cell for cell in cells if not self._takes_over(cell)]
        if self._earlier is None:
            for started in itertools.chain.from_iterable((*cell.stages, cell) for cell in missing):
                self._store.remove_checkpoints(started.key)
        for cell in missing:
            self._progress.plan([cell], self.preparations[cell.recipe.name])
        self._executor.submit(missing)

    def _takes_over(self, cell: Cell) -> bool:
        """Whether an earlier run trained the cell. So may it have its stages, which a cell to train then finds."""
        if self._earlier is None:
            return False
        found = {}
        for one in (*cell.stages, cell):
            record = self._earlier.record_of(one, self.preparations[cell.recipe.name])
            found[one.key] = record is not None and self._executor.reuse(one, record)
        return found[cell.key]

    def there_already(self) -> set[str]:
        """Keys of the cells, sources among them, that would be taken over; before tuning nobody knows which cells there will be."""
        if self._earlier is None or self.trials:
            return set()
        cells = [
            (one, cell.recipe.name)
            for task in self.tasks
            for cell in task.cells
            for one in (*cell.stages, cell)
        ]
        known = [
            (cell, self.preparations[recipe])
            for cell, recipe in cells
            if recipe in self.preparations
        ]
        return {
            cell.key
            for cell, preparation in known
            if self._earlier.record_of(cell, preparation) is not None
        }

    def _tuned(self, tasks: Sequence[Task], trials: int) -> list[Task]:
        """The tasks with the hyperparameters that their trials found. Trials of all methods share the workers."""
        self._searches = tuning.tune(
            {task.name: task.cells[0] for task in tasks}, trials, self._run_trials
        )
        return [self._with_winner(task) for task in tasks]

    def _with_winner(self, task: Task) -> Task:
        """The task as it was given, or after tuning with what tuning chose."""
        search = self._searches.get(task.name)
        return (
            task
            if search is None
            else replace(task, cells=tuple(tuning.tuned(cell, search) for cell in task.cells))
        )

    def _run_trials(self, cells: Sequence[Cell]) -> list[Record]:
        self._submit(cells)
        with self._progress.showing(last=False):
            return self._executor.wait(cells)

    def wait(self, task: Task) -> list[Record]:
        """The records of a task's cells, in the order of its seeds."""
        task = self._with_winner(task)
        known = [(task.recipe.name, task.method.name, cell.seed, False) for cell in task.cells]
        if not self._has_ended(task):
            with self._progress.showing():
                self._executor.wait(task.cells)
        return [self._records[key] for key in known if key in self._records]

    def records_of_stages(self, task: Task) -> list[Record]:
        """The records of the cells that a task's cells were built on, once those have ended."""
        keys = [
            (stage.recipe.name, stage.method.name, stage.seed, True)
            for stage in task.cells[0].stages
        ]
        return [self._records[key] for key in keys if key in self._records]

    def needs_gpu(self, task: Task) -> bool:
        """Whether the task's recipe is for GPUs and there is none."""
        return task.recipe.gpu and self._executor.device == "cpu"

    def comparison(self) -> Comparison:
        """All records so far in the order of the tasks, sources last, with what there is to say about the run."""
        notes = [
            note
            for recipe in {task.recipe.name: task.recipe for task in self.tasks}.values()
            for note in recipe.notes
        ]
        notes += [f"tuned: {tuning.said_of(search)}" for search in self._searches.values()]
        asked = [
            (t.recipe.name, t.method.name, cell.seed, False) for t in self.tasks for cell in t.cells
        ]
        records = [self._records[key] for key in asked if key in self._records]
        records += [record for record in self._records.values() if record.is_source]
        predictions, unreadable = self._predictions(records)
        reused = [*(record for record in records if record.reused), *self._reused_trials]
        notes += [resuming.said_of(reused)] if reused else []
        notes += [
            *self._set_aside,
            *(self._earlier.warnings if self._earlier else []),
            *self._executor.warnings,
            *unreadable,
            *self._tracking.warnings(),
        ]
        return Comparison(tuple(records), (*notes, *self.untrained()), predictions)

    def stop(self) -> None:
        """End what runs and start nothing more; what has ended is kept."""
        self._stopped = True
        self._executor.stop()

    def untrained(self) -> list[str]:
        """The line that says which cells of a run that was ended have no record; none before, and none if all have one."""
        if not (self._started and self._stopped):
            return []
        missing = {
            f"{task.method.title} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}": len(seeds)
            for task in self.tasks
            if (
                seeds := [
                    str(cell.seed)
                    for cell in task.cells
                    if (*task.name, cell.seed, False) not in self._records
                ]
            )
        }
        if not missing:
            return []
        number, names = sum(len(task.cells) for task in self.tasks), "; ".join(missing)
        return [
            f"Not trained, as the run was ended before: {names} ({sum(missing.values())} of {number} cells). "
            f"The same command goes on from here: what has ended is kept in {self._store.folder}."
        ]

    def _predictions(self, records: Iterable[Record]) -> tuple[dict[str, Predictions], list[str]]:
        """Those of finished cells by identity, and a line for each file that cannot be read."""
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

    def track(self, text_of: Callable[[Comparison], str]) -> None:
        """Log every recipe's comparison, a row a method and its text, and wait until all that was logged is written."""
        made = self.comparison()
        for recipe in dict.fromkeys(row.recipe for row in made.rows()):
            one = replace(
                made,
                records=tuple(record for record in made.records if record.recipe_name == recipe),
            )
            self._tracking.log_table(
                recipe, [{"method": row.method, **_means(row)} for row in one.rows()], text_of(one)
            )
        self._progress.doing(
            f"what was logged is being written: {', '.join(self._tracking.trackers)}"
        )
        with self._progress.showing(last=False):
            self._tracking.finish()

    def close(self) -> None:
        """End every process and remove scratch files."""
        self._tracking.close()
        self._executor.close()

    def _expected_seconds(self, task: Task) -> float:
        return total_seconds(task.cells, self.preparations, self.workers)

    def _has_ended(self, task: Task) -> bool:
        return all(
            (task.recipe.name, task.method.name, cell.seed, False) in self._records
            for cell in task.cells
        )

    def _give_up(self, task: Task, status: Status, reason: str, stack: str = "") -> None:
        records = [without_result(cell, status, reason, stack=stack) for cell in task.cells]
        self._keep(records)
        for record in records:
            self._executor.store_here(record)

    def _heard(self, event: Event) -> None:
        record = event.record
        if record is not None:
            self._reused_trials += [record] if record.reused and event.cell.trial else []
            self._keep([] if event.cell.trial else [record])

    def _keep(self, records: Iterable[Record]) -> None:
        for record in records:
            self._records[record.recipe_name, record.method_name, record.seed, record.is_source] = (
                record
            )
