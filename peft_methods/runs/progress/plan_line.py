"""The plan of a session in two lines: how many runs and how long, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.runs.plan import RunGroup
from peft_methods.runs.progress.time_left import TimeLeft
from peft_methods.utils.units import format_duration
from peft_methods.utils.words import counted

MOST_NAMES = 6  # methods that are named; of more, the first ones and the last


def plan_lines(groups: Sequence[RunGroup], time: TimeLeft, gpus: int) -> list[str]:
    """Describe a session that trains these groups in this order.

    On the session's `gpus`, the expected time is also given in hours of all GPUs that the runs can
    occupy.
    """
    runs, reused, seconds = time.left, len(time.reused), time.seconds()
    methods = {group.method.name for group in groups}
    more = f" ({reused} more reused)" if reused else ""
    used = min(gpus, runs * max(group.recipe.budget.gpus for group in groups))
    hours = f" ({used * seconds / 3600:.2g} GPU hours)" if used else ""
    seeds = any(run.seed_plan is not None for group in groups for run in group.runs)
    return [
        f"{counted(runs, 'run')}{more} of {counted(len(methods), 'method')}, "
        f"{min(runs, time.workers)} at a time, about {format_duration(seconds)}{hours}"
        f"{', without the seeds that may be added' if seeds else ''}, corrected as runs finish",
        f"the longest first: {order_of(groups)}",
    ]


def order_of(groups: Sequence[RunGroup]) -> str:
    """Name the groups in their order; of many, the first ones and the last."""
    several = len({group.recipe.name for group in groups}) > 1
    names = [
        f"{group.recipe.name}: {group.method.info.title}" if several else group.method.info.title
        for group in groups
    ]
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 2], "…", names[-1]]
    return ", ".join(names)
