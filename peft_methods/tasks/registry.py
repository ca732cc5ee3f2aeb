"""All tasks by name: those of this package and those that other installed packages bring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from importlib import util
from types import ModuleType
from typing import Any

from peft_methods.recipes.schema import DEFAULT_TASK, Recipe
from peft_methods.tasks.base import Task
from peft_methods.tasks.metrics import check_metric
from peft_methods.utils.entry_points import installed
from peft_methods.utils.errors import OptionError, unknown

# Adding a task changes no fingerprint: see `code_fingerprint`.
IS_REGISTRY = True
PACKAGE = "peft_methods.tasks"
GROUP = "peft_methods.tasks"  # entry points: NAME = "package.module:Class"
DEFINES_A_TASK = re.compile(r"^class \w+\(.*\bTask\b.*\):", re.MULTILINE)


class Registry(Mapping[str, Task]):
    """Every task by name, the default one first. Tasks are looked for at the first use."""

    def __init__(self, tasks: Iterable[Task] | None = None) -> None:
        self._given = tasks
        self._broken: dict[str, str] = {}

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        if self._given is not None:
            return {task.name: task for task in self._given}
        built = {task.name: task for task in built_in()}
        brought, self._broken = installed(
            GROUP, "a task", lambda loaded, others: _checked(loaded, {**built, **others})
        )
        return dict(
            sorted({**built, **brought}.items(), key=lambda one: (one[0] != DEFAULT_TASK, one[0]))
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each installed task that cannot be loaded."""
        return tuple(self._broken.values()) if self._tasks else ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __getitem__(self, name: str) -> Task:
        """Return a task. Raises `OptionError` for an unknown name."""
        if name in self._tasks:
            return self._tasks[name]
        if name in self._broken:
            raise OptionError(self._broken[name], setting="task")
        raise OptionError(unknown("task", name, self._tasks), setting="task")


def built_in() -> list[Task]:
    """The tasks of this package. Helper files are not imported, since they may import torch."""
    package = importlib.import_module(PACKAGE)
    modules = [one.name for one in pkgutil.iter_modules(package.__path__, f"{PACKAGE}.")]
    return [task for name in modules if _defines_a_task(name) for task in tasks_in(name)]


def _defines_a_task(module: str) -> bool:
    spec = util.find_spec(module)
    source = getattr(spec.loader, "get_source", lambda _: None)(module) if spec else None
    return source is None or DEFINES_A_TASK.search(source) is not None


def tasks_in(module: str | ModuleType) -> list[Task]:
    """The tasks that a module defines. Abstract classes are bases of tasks."""
    loaded = importlib.import_module(module) if isinstance(module, str) else module
    return [
        one()
        for one in vars(loaded).values()
        if isinstance(one, type)
        and issubclass(one, Task)
        and one.__module__ == loaded.__name__
        and not inspect.isabstract(one)
    ]


def _checked(loaded: Any, known: Mapping[str, Task]) -> tuple[str, Task]:
    """An entry point's task. Raises `TypeError` or `ValueError` if it cannot be used."""
    if not (isinstance(loaded, type) and issubclass(loaded, Task)):
        raise TypeError(f"{loaded!r} is not a subclass of peft_methods.tasks.base.Task")
    task = loaded()  # raises TypeError where a method of the contract is missing
    needed = ("name", "title", "head", "peft_type", "metrics", "trivial")
    if missing := [name for name in needed if not getattr(task, name, None)]:
        raise TypeError(f"{loaded.__name__} has no {missing[0]}")
    if task.name in known:
        raise ValueError(f"the name {task.name!r} is taken")
    others = {metric.name: metric for one in known.values() for metric in one.all_metrics}
    for metric in task.all_metrics:
        if others.get(metric.name, metric) != metric:
            raise ValueError(f"another task defines the metric {metric.name!r} differently")
    return task.name, task


TASKS = Registry()


def task_of(recipe: Recipe) -> Task:
    """Return the task of a recipe. Raises `OptionError` for an unknown one."""
    return TASKS[recipe.task]


def with_task(recipe: Recipe) -> Recipe:
    """Return the recipe with its task's first metric as `data.select_by` where it names none.

    Raises `OptionError` for an unknown task, for a metric that the task does not have, and for
    packed batches of a task without them.
    """
    task = TASKS[recipe.task]
    if recipe.budget.padding == "packed" and not task.packs:
        able = " or ".join(name for name, one in TASKS.items() if one.packs)
        raise OptionError(
            f"budget.padding = 'packed' is for the task {able}, not {task.name}: set "
            f"budget.padding = 'dynamic' or 'fixed'.",
            setting="budget.padding",
        )
    if recipe.data.rank_by is not None:
        check_metric(recipe.data.rank_by, task.metrics, task.title.lower(), "data.rank_by")
    if recipe.data.select_by is None:
        return replace(recipe, data=replace(recipe.data, select_by=task.metrics[0].name))
    check_metric(recipe.data.select_by, task.selection_metrics, task.title.lower())
    return recipe
