"""Detaching: submit all runs, say how to collect them, and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_methods.cli.setting_help import explained, how_to_change, in_use
from peft_methods.utils.errors import OptionError
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from peft_methods.runs.detached import Detached
    from peft_methods.runs.experiment import Experiment


def refuse_detach(trials: int | None) -> None:
    """Raise `OptionError` for what needs the session until the end."""
    if trials:
        raise OptionError(
            "detach cannot be combined with tune: each trial depends on the results before it. "
            "Leave out one of them.",
            setting="detach",
        )


def detach(experiment: Experiment) -> tuple[str, int]:
    """Start all runs and leave them to their executor. Return the text, and how many errors it has.

    Raises `OptionError` if the executor cannot start them.
    """
    experiment.start()
    errors = [
        f"{recipe}: {explained(error)}" for recipe, error in sorted(experiment.errors.items())
    ]
    return "\n".join([*errors, *_lines(experiment.detach())]), len(errors)


def _lines(detached: Detached) -> list[str]:
    option = in_use(how_to_change("detach"))
    ended = f"{counted(detached.ended, 'run')} ended" if detached.ended else ""
    if not detached.jobs:
        rest = f" The same command without {option} shows the table."
        return [f"detached: no job is left in Slurm{f', {ended}' if ended else ''}.{rest}"]
    arrays = " ".join(sorted({job.partition("_")[0] for job in detached.jobs}, key=int))
    waiting = (
        f"{counted(detached.waiting, 'run')} will be submitted later, after those that they need"
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
