"""One comparison in the making: recipes and methods in, cells through an executor, records out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peft_methods import tuning
from peft_methods.cells import Cell, Preparation, cells_of, chosen_methods, fitting_engine
from peft_methods.comparing import Comparison
from peft_methods.environment import find_device, usable_cores
from peft_methods.errors import DataError, OptionError, PeftMethodsError
from peft_methods.execution.estimating import total_seconds
from peft_methods.execution.local import LocalExecutor
from peft_methods.execution.progress import Progress
from peft_methods.methods import Method
from peft_methods.recipe import Recipe, check_trust
from peft_methods.records import Record, Status, Store, StoreError, without_result
from peft_methods.tuning import Search

DEFAULT_RESULTS = ".peft/results"
NEED_A_GPU = ("tf32", "fp16")  # precisions


@dataclass(frozen=True, repr=False)
class Task:
    """One method on one recipe, all its seeds: what one benchmark test waits for."""

    recipe: Recipe
    method: Method
    cells: tuple[Cell, ...]

    def __repr__(self) -> str:
        return f"{self.recipe.name}-{self.method.name}"  # pytest-benchmark writes it to its JSON: no folders of the user's there


def tasks_of(
    recipes: Iterable[Recipe], methods: Sequence[str] | None, device: str, engine: str = "auto", *, trust_remote_code: bool = False
) -> list[Task]:
    """Every chosen method of every recipe.

    Raises `OptionError` for a method that a recipe does not have, two recipes of one name, a precision or an engine without its GPU,
    a model's own code that not both the recipe and the user want run.
    """
    recipes = list(recipes)
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"two recipes are named {twice!r}; their rows could not be told apart. Change `name` in one of them.")
    check_trust(recipes, trust_remote_code)
    for recipe in recipes:
        _check_precision(recipe, device)
    engine = fitting_engine(engine, device)
    return [
        Task(recipe, method, tuple(cells_of(recipe, method, device, engine)))
        for recipe in recipes
        for method in chosen_methods(recipe, methods)
    ]


def _check_precision(recipe: Recipe, device: str) -> None:
    """Raise `OptionError` for a precision of GPUs where there is none; a recipe for GPUs is skipped there anyway."""
    precision = recipe.budget.precision
    if device == "cpu" and precision in NEED_A_GPU and not recipe.gpu:
        raise OptionError(
            f"recipe {recipe.name!r}: budget.precision = {precision!r} needs an NVIDIA GPU and none is visible. "
            f"Allowed here: fp32, bf16; --peft-set budget.precision=fp32."
        )


def default_workers(device: str, cores: int) -> int:
    """Two cells side by side on a CPU, each with half the cores: small models scale badly over threads. One on a GPU."""
    return 2 if device == "cpu" and cores > 1 else 1


def threads_of_a_cell(device: str, cores: int, workers: int) -> int:
    """A cell's share of the cores. Two on a GPU, where the host only launches: with sixteen, whose threads wait by spinning,
    a training step took three times as long whenever the next cell's process was doing its imports.
    """
    return max(1, cores // workers) if device == "cpu" else min(2, cores)


def _name(task: Task) -> tuple[str, str]:
    return task.recipe.name, task.method.name


class Job:
    """Runs tasks and gathers their records. Nothing starts before `start`; `close` ends all that runs."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        results: Path = Path(DEFAULT_RESULTS),
        save_models: Path | None = None,
        workers: int | None = None,
        trials: int | None = None,
        show: Callable[[str, bool], None] = lambda text, lasting: None,
    ) -> None:
        self.tasks, self.trials = tuple(tasks), trials
        self.preparations: dict[str, Preparation] = {}
        self.errors: dict[str, PeftMethodsError] = {}
        self._store = Store(results)
        self._store.prepare()
        device, cores = find_device(), usable_cores()
        self.workers = workers or default_workers(device, cores)
        self._show, self._progress = show, Progress(show, workers=self.workers)
        self._executor = LocalExecutor(
            self._store,
            device,
            workers=self.workers,
            threads=threads_of_a_cell(device, cores, self.workers),
            save_models=save_models,
        )
        self._executor.watch(self._progress)
        self._executor.watch(lambda event: self._keep([event.record] if event.record and not event.cell.trial else []))
        self._records: dict[tuple[str, str, int, bool], Record] = {}
        self._searches: dict[tuple[str, str], Search] = {}
        self._started = False

    def prepare(self) -> None:
        """Check data and model of every recipe; what is wrong is kept in `errors` by recipe."""
        waiting = {task.recipe.name: task.recipe for task in self.tasks if not (self._has_ended(task) or self.needs_gpu(task))}
        for recipe in waiting.values():
            self._show(f"{recipe.name}: reading data and model", False)
            methods = [task.method for task in self.tasks if task.recipe.name == recipe.name]
            try:
                self.preparations[recipe.name] = self._executor.prepare(recipe, methods)
            except DataError as error:
                self.errors[recipe.name] = error

    def start(self) -> None:
        """Prepare, then queue every cell that can run; the others get their records with the reason. Once."""
        if self._started:
            return
        self._started = True
        for task in self.tasks:
            if self.needs_gpu(task):
                self._give_up(task, "skipped", f"recipe {task.recipe.name!r} needs an NVIDIA GPU and none is visible")
        self.prepare()
        runnable = []
        for task in self.tasks:
            if self._has_ended(task):
                continue
            error, preparation = self.errors.get(task.recipe.name), self.preparations.get(task.recipe.name)
            reason = preparation.unsupported.get(task.method.name) if preparation else None
            if error is not None:
                self._give_up(task, "failed", str(error))
            elif reason is not None:
                self._give_up(task, "skipped", reason)
            elif preparation is not None:
                runnable.append(task)
        if self.trials:
            runnable = self._tuned(runnable, self.trials)
        for task in runnable:
            self._progress.plan(task.cells, self.preparations[task.recipe.name])
        for task in sorted(runnable, key=self._expected_seconds, reverse=True):  # the longest first: no straggler at the end
            self._executor.submit(task.cells)

    def _tuned(self, tasks: Sequence[Task], trials: int) -> list[Task]:
        """The tasks with the hyperparameters that their trials found. Trials of all methods share the workers."""
        self._searches = tuning.tune({_name(task): task.cells[0] for task in tasks}, trials, self._run_trials)
        return [self._with_winner(task) for task in tasks]

    def _with_winner(self, task: Task) -> Task:
        """The task as it was given, or after tuning with what tuning chose."""
        search = self._searches.get(_name(task))
        return task if search is None else replace(task, cells=tuple(tuning.tuned(cell, search) for cell in task.cells))

    def _run_trials(self, cells: Sequence[Cell]) -> list[Record]:
        for cell in cells:
            self._progress.plan([cell], self.preparations[cell.recipe.name])
        self._executor.submit(cells)
        return self._executor.wait(cells)

    def wait(self, task: Task) -> list[Record]:
        """The records of a task's cells, in the order of its seeds."""
        task = self._with_winner(task)
        known = [(task.recipe.name, task.method.name, cell.seed, False) for cell in task.cells]
        if not self._has_ended(task):
            self._executor.wait(task.cells)
        return [self._records[key] for key in known if key in self._records]

    def records_of_stages(self, task: Task) -> list[Record]:
        """The records of the cells that a task's cells were built on, once those have ended."""
        keys = [(stage.recipe.name, stage.method.name, stage.seed, True) for stage in task.cells[0].stages]
        return [self._records[key] for key in keys if key in self._records]

    def needs_gpu(self, task: Task) -> bool:
        """Whether the task's recipe is for GPUs and there is none."""
        return task.recipe.gpu and self._executor.device == "cpu"

    def comparison(self) -> Comparison:
        """All records so far in the order of the tasks, sources last, with what there is to say about the run."""
        notes = [note for recipe in {task.recipe.name: task.recipe for task in self.tasks}.values() for note in recipe.notes]
        notes += [f"tuned: {tuning.said_of(search)}" for search in self._searches.values()]
        asked = [(t.recipe.name, t.method.name, cell.seed, False) for t in self.tasks for cell in t.cells]
        records = [self._records[key] for key in asked if key in self._records]
        records += [record for record in self._records.values() if record.is_source]
        predictions = {}
        for record in records:
            try:
                found = self._store.read_predictions(record) if record.status == "ok" else None
            except StoreError as error:
                notes.append(f"{error} {record.method_name} seed {record.seed} is in no group.")
                continue
            if found is not None:
                predictions[record.identity] = found
        return Comparison(tuple(records), (*notes, *self._executor.warnings), predictions)

    def close(self) -> None:
        """End every process and remove scratch files."""
        self._executor.close()

    def _expected_seconds(self, task: Task) -> float:
        return total_seconds(task.cells, self.preparations, self.workers)

    def _has_ended(self, task: Task) -> bool:
        return all((task.recipe.name, task.method.name, cell.seed, False) in self._records for cell in task.cells)

    def _give_up(self, task: Task, status: Status, reason: str) -> None:
        records = [without_result(cell, status, reason) for cell in task.cells]
        self._keep(records)
        for record in records:
            self._executor.store_here(record)

    def _keep(self, records: Iterable[Record]) -> None:
        for record in records:
            self._records[record.recipe_name, record.method_name, record.seed, record.is_source] = record
