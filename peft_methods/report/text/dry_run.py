"""Output of a dry run: what is planned for every method, and the expected total time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from tabulate import tabulate

from peft_methods.estimation.results import Interval
from peft_methods.report.formatting import MISSING, between
from peft_methods.runs.cost_model import expected_seconds, total_seconds
from peft_methods.runs.plan import RunGroup, longest_first
from peft_methods.runs.predicted import SEVERAL_GPUS, Prediction
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.plan_line import order_of
from peft_methods.runs.spec import RunSpec
from peft_methods.utils.sanitize import visible
from peft_methods.utils.units import format_duration
from peft_methods.utils.words import counted


def plan_text(
    tasks: Sequence[RunGroup],
    preparations: Mapping[str, PreparedRecipe],
    reasons: Mapping[str, str],
    workers: int,
    trials: int | None = None,
    *,
    there: Collection[str] = (),
) -> str:
    """Format a line per method with its seeds, prerequisites and time, and the total time.

    `reasons` say why recipes are not run at all, by name.
    `there` has the keys of runs and prerequisite runs that an earlier session finished: they are
    reused and cost no time. `trials` is the number of tuning trials per method, if tuning is on.
    """
    known = [task for task in tasks if task.recipe.name in preparations]
    lines = [line for task in known for line in _lines(task, preparations, there)]
    able = [task for task in known if _reason(task, preparations) is None]
    runnable = [run for task in able for run in task.runs]
    missing = [run for run in runnable if run.key not in there]
    seconds = total_seconds(missing, preparations, workers, there)
    parts = [f"{name}: {reason}" for name, reason in reasons.items()]
    if lines:
        headings = ["Method", "Seeds", "Learning rate", "Prerequisites", "Expected"]
        if any(one.predicted for one in preparations.values()):
            headings.append("Peak on a GPU")
        else:
            lines = [line[:-1] for line in lines]
        parts.append(tabulate(lines, headings, tablefmt="simple", disable_numparse=True))
        parts.append(
            f"{counted(len(missing), 'run')}, {_at_a_time(missing, there, workers)} at a time, "
            f"{_estimate(seconds, preparations.values())} Nothing was trained."
        )
        if any(task.recipe.budget.gpus > 1 for task in known):
            parts.append(f"{SEVERAL_GPUS[0].upper()}{SEVERAL_GPUS[1:]}.")
    waiting = [task for task in able if any(run.key not in there for run in task.runs)]
    if len(waiting) > 1:
        order = order_of(longest_first(waiting, preparations, workers))
        parts.append(f"The longest come first: {order}.")
    if len(missing) < len(runnable):
        finished = counted(len(runnable) - len(missing), "more run")
        are_checked = all(one.has_weights for one in preparations.values())
        condition = "" if are_checked else ", if the weights of the model are still the same"
        parts.append(f"An earlier session finished {finished}, to be reused{condition}.")
    if lines and trials:
        parts.append(
            f"Tuning first adds {counted(trials, 'trial')} per method, for the fraction of the "
            "epochs set by tuning.fraction, and at most two full runs per method for each of "
            "tuning.seeds. The total does not include them."
        )
    plans = [run.seed_plan for run in runnable if run.seed_plan is not None]
    if plans:
        parts.append(
            f"Seeds are then added until the comparison is decided, up to {plans[0].most} per "
            "method. The total does not include them."
        )
    return "\n\n".join(parts)


def _estimate(seconds: float, preparations: Collection[PreparedRecipe]) -> str:
    """Format the total time, and where it is from."""
    total = format_duration(seconds)
    if all(one.is_timed for one in preparations):
        return f"about {total} in total, estimated from a timed forward pass on this machine."
    return (
        f"at least {total} in total without loading the model: the FLOPs of its linear layers at "
        "the rate of matrix products on this machine. No weights were read."
    )


def _reason(task: RunGroup, preparations: Mapping[str, PreparedRecipe]) -> str | None:
    preparation = preparations.get(task.recipe.name)
    return None if preparation is None else preparation.unsupported.get(task.method.name)


def _lines(
    task: RunGroup, preparations: Mapping[str, PreparedRecipe], there: Collection[str]
) -> Iterator[list[str]]:
    """Yield a line for the seeds to train, and one for those that are finished."""
    reason, preparation = _reason(task, preparations), preparations[task.recipe.name]
    for is_finished, chosen in groupby(task.runs, key=lambda run: run.key in there):
        runs = list(chosen)
        prediction = preparation.predicted.get(task.method.name)
        at_least = "" if preparation.is_timed else "at least "
        seconds = expected_seconds(runs[0], preparation)
        if prediction is not None and prediction.train_seconds is not None:
            at_least, seconds = "", prediction.train_seconds
        each = format_duration(seconds)
        expected = f"skipped: {reason}" if reason else f"{at_least}{len(runs)} × {each}"
        yield [
            "-".join(task.name),
            ", ".join(str(run.seed) for run in runs),
            f"{task.method.learning_rate:g}",
            visible(", ".join(one.recipe.data.source for one in runs[0].prerequisites)),
            "already finished" if is_finished else visible(expected),
            _peak(prediction),
        ]


def _peak(prediction: Prediction | None) -> str:
    """Format a predicted peak with its range: '3.24 GB (3.18–3.31)'."""
    known = prediction and (
        prediction.low_memory_bytes,
        prediction.peak_memory_bytes,
        prediction.high_memory_bytes,
    )
    if not known or None in known:
        return MISSING
    low, expected, high = (float(one or 0) for one in known)
    return between(Interval(low, expected, high))


def _at_a_time(missing: Sequence[RunSpec], there: Collection[str], workers: int) -> int:
    """How many of the runs and their prerequisites can run at the same time."""
    waiting = {one.key for run in missing for one in (*run.prerequisites, run)} - set(there)
    return max(1, min(workers, len(waiting)))
