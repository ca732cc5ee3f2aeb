"""What a dry run prints: every cell, and how long all of them may take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tabulate import tabulate

from peft_methods.cells import Cell, Preparation
from peft_methods.errors import PeftMethodsError
from peft_methods.escaping import visible
from peft_methods.execution.estimating import expected_seconds, in_words, total_seconds
from peft_methods.tasks import Task


def plan_text(  # what a job knows
    tasks: Sequence[Task],
    preparations: Mapping[str, Preparation],
    errors: Mapping[str, PeftMethodsError],
    workers: int,
    trials: int | None = None,
    *,
    there: Collection[str] = (),
) -> str:
    """A line a cell (sources named), those that would be skipped with their reason, and the total; what tuning adds is said.

    `there` are the keys of the cells and sources that an earlier run left: they cost no time.
    """
    known = [task for task in tasks if task.recipe.name in preparations]
    lines = [_line(task, cell, preparations, there) for task in known for cell in task.cells]
    runnable = [
        cell for task in known if _reason(task, preparations) is None for cell in task.cells
    ]
    missing = [cell for cell in runnable if cell.key not in there]
    seconds = total_seconds(missing, preparations, workers, there)
    parts = [f"{name}: {error}" for name, error in errors.items()]
    if lines:
        parts.append(
            tabulate(
                lines,
                headers=("Cell", "Learning rate", "Sources first", "Expected"),
                tablefmt="simple",
                disable_numparse=True,
            )
        )
        parts.append(
            f"{len(missing)} cells, {workers} at a time, about {in_words(seconds)} in all, from a timed forward pass on this machine. "
            f"Nothing was trained."
        )
    if len(missing) < len(runnable):
        parts.append(
            f"{len(runnable) - len(missing)} more are there already, from an earlier run, and would be reused."
        )
    if lines and trials:
        parts.append(
            f"Before them {trials} trials of each method, at the share of the epochs that [tuning] gives; they are not counted here."
        )
    return "\n\n".join(parts)


def _reason(task: Task, preparations: Mapping[str, Preparation]) -> str | None:
    preparation = preparations.get(task.recipe.name)
    return None if preparation is None else preparation.unsupported.get(task.method.name)


def _line(
    task: Task, cell: Cell, preparations: Mapping[str, Preparation], there: Collection[str]
) -> list[str]:
    reason = _reason(task, preparations)
    expected = (
        f"skipped: {reason}"
        if reason
        else in_words(expected_seconds(cell, preparations[task.recipe.name]))
    )
    if cell.key in there:
        expected = "there already"
    sources = ", ".join(stage.recipe.data.source for stage in cell.stages)
    return [cell.label, f"{task.method.learning_rate:g}", visible(sources), visible(expected)]
