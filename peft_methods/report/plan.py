"""What a dry run prints: every cell, and how long all of them may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from peft_methods.cells import Preparation
from peft_methods.errors import PeftMethodsError
from peft_methods.escaping import visible
from peft_methods.execution.estimating import expected_seconds, in_words, total_seconds
from peft_methods.job import Task


def plan_text(  # what a job knows
    tasks: Sequence[Task],
    preparations: Mapping[str, Preparation],
    errors: Mapping[str, PeftMethodsError],
    workers: int,
    trials: int | None = None,
) -> str:
    """A line a cell (sources named), those that would be skipped with their reason, and the total; what tuning adds is said."""
    lines = [_line(task, index, preparations) for task in tasks if task.recipe.name in preparations for index in range(len(task.cells))]
    runnable = [cell for task in tasks if _reason(task, preparations) is None and task.recipe.name in preparations for cell in task.cells]
    seconds = total_seconds(runnable, preparations, workers)
    parts = [f"{name}: {error}" for name, error in errors.items()]
    if lines:
        parts.append(
            tabulate(lines, headers=("Cell", "Learning rate", "Sources first", "Expected"), tablefmt="simple", disable_numparse=True)
        )
        parts.append(
            f"{len(runnable)} cells, {workers} at a time, about {in_words(seconds)} in all, from a timed forward pass on this machine. "
            f"Nothing was trained."
        )
    if lines and trials:
        parts.append(
            f"Before them {trials} trials of each method, at the share of the epochs that [tuning] gives; they are not counted here."
        )
    return "\n\n".join(parts)


def _reason(task: Task, preparations: Mapping[str, Preparation]) -> str | None:
    preparation = preparations.get(task.recipe.name)
    return None if preparation is None else preparation.unsupported.get(task.method.name)


def _line(task: Task, index: int, preparations: Mapping[str, Preparation]) -> list[str]:
    cell, reason = task.cells[index], _reason(task, preparations)
    expected = f"skipped: {reason}" if reason else in_words(expected_seconds(cell, preparations[task.recipe.name]))
    sources = ", ".join(stage.recipe.data.source for stage in cell.stages)
    return [cell.label, f"{task.method.learning_rate:g}", visible(sources), visible(expected)]
