"""Sessions that run no test: they print the plan of a dry run, or start the runs and detach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_methods.cli.setting_help import explained, how_to_change, in_use
from peft_methods.utils.errors import OptionError
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from peft_methods.runs.detached import Detached
    from peft_methods.runs.experiment import Experiment


def refuse_detach(trials: int | None, *, detach: bool) -> None:
    """Raise `OptionError` for what needs the session until the end."""
    if detach and trials:
        raise OptionError(
            "detach cannot be combined with tune: each trial depends on the results before it. "
            "Leave out one of them.",
            setting="detach",
        )


def plan(experiment: Experiment) -> tuple[str, int]:
    """Check all recipes. Return the plan as a text, and how many recipes failed."""
    from peft_methods.report.text.dry_run import plan_text
    from peft_methods.runs.plan import no_gpu_reason

    experiment.prepare()
    reasons = {
        task.recipe.name: no_gpu_reason(task.recipe)
        for task in experiment.tasks
        if experiment.needs_gpu(task)
    }
    reasons |= {recipe: explained(error) for recipe, error in experiment.errors.items()}
    text = plan_text(
        experiment.tasks,
        experiment.preparations,
        reasons,
        experiment.workers,
        experiment.trials,
        there=experiment.reusable(),
    )
    return text, len(experiment.errors)


def detach(experiment: Experiment) -> tuple[str, int]:
    """Start all runs and leave them to their executor. Return the text, and how many errors it has.

    Raises `OptionError` if the executor cannot start them.
    """
    experiment.start()
    errors = [
        f"{recipe}: {explained(error)}" for recipe, error in sorted(experiment.errors.items())
    ]
    return "\n".join(
        [*errors, *_lines(experiment.detach(), len(experiment.results().records))]
    ), len(errors)


def _lines(detached: Detached, records: int) -> list[str]:
    option = in_use(how_to_change("detach"))
    ended = f"{counted(records, 'run')} ended" if records else ""
    if not detached.jobs:
        rest = f" The same command without {option} shows the table."
        return [f"detached: no job is left in Slurm{f', {ended}' if ended else ''}.{rest}"]
    arrays = " ".join(sorted({job.partition("_")[0] for job in detached.jobs}, key=int))
    waiting = (
        f"{counted(detached.waiting, 'run')} to submit when those that they build on have ended"
        if detached.waiting
        else ""
    )
    left = f"{counted(len(detached.jobs), 'job')} in Slurm"
    return [
        f"detached: {', '.join(filter(None, [left, waiting, ended]))}.",
        f"To collect the results, run the same command without {option}: it waits for what is left "
        "and shows the table.",
        f"To look: squeue --jobs={arrays.replace(' ', ',')}. To cancel: scancel {arrays}",
    ]
