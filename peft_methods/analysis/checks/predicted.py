"""Rule on estimates made blind to a run: they should be what is measured."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.checks.rule import rule
from peft_methods.analysis.predicted import errors_of
from peft_methods.runs.record import Record

MOST = 0.10  # share of the measured peak
TIME_ADVICE = "repeat the run on an idle machine; if they still differ, report the estimate"
MEMORY_ADVICE = (
    "plan with the measured peak, and report the estimate with this record: other work on the "
    "machine does not change a run's allocated memory"
)


@rule("V426", "note", "run")
def differs_from_its_estimate(record: Record) -> Iterator[tuple[str, str]]:
    """The estimate of the run and the measurement differ.

    The peak differs by more than 10 %, or the training time is outside the range of its estimate.
    Runs that another engine than the chosen one trained are left out. So are times of runs that
    stopped early, since the estimate counts all epochs.
    """
    if record.spec.fallback_from or record.environment.get("engine_note"):
        return
    stopped = 0 < len(record.epochs) < record.spec.recipe.budget.epochs
    for error in errors_of(record):
        is_time = error.metric == "train_seconds"
        differs = not (error.is_in_range or stopped) if is_time else abs(error.share) > MOST
        if differs:
            yield (
                f"the estimate of {error.title} was {error.format(error.predicted)}, measured were "
                f"{error.format(error.measured)} ({error.share:+.0%})",
                TIME_ADVICE if is_time else MEMORY_ADVICE,
            )
