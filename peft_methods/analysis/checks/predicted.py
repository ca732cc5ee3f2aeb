"""Rule on estimates made before a run: they should be what is measured."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.checks.rule import rule
from peft_methods.analysis.predicted import errors_of
from peft_methods.runs.record import Record

MOST = 0.10  # share of the measured value


@rule("V426", "note", "run")
def differs_from_its_estimate(record: Record) -> Iterator[tuple[str, str]]:
    """The estimate made before the run differs from the measurement by more than 10 %.

    One of both is wrong: the estimate does not know something that the run does, or the figure of
    the run was disturbed by other work on the machine.
    """
    for error in errors_of(record):
        if abs(error.share) > MOST:
            yield (
                f"the estimate of {error.title} was {error.format(error.predicted)}, measured were "
                f"{error.format(error.measured)} ({error.share:+.0%})",
                "repeat the run on an idle machine; if they still differ, report the estimate",
            )
