"""Rules on processes that do several runs: their results must be those of fresh processes."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.checks.rule import first_three, rule
from peft_methods.runs.isolation.marks import REPEATED, isolation_of
from peft_methods.runs.record import Record

ADVICE = 'train again with isolation = "fresh"'


@rule("V414", "error", "run")
def differs_in_fresh_process(record: Record) -> Iterator[tuple[str, str]]:
    """A run of the session gave other results when it was repeated in a fresh process.

    Then no run of the session that was not the first of its process can be trusted.
    """
    repeated = isolation_of(record).get(REPEATED, {})
    if found := repeated.get("differences"):
        yield f"{repeated['run']} was repeated in a fresh process: {first_three(found)}", ADVICE


@rule("V415", "note", "run")
def process_replaced(record: Record) -> Iterator[tuple[str, str]]:
    """A run left its process changed, so the next one had a fresh one; or no repeat was possible.

    The results are not affected, but every such process costs time.
    """
    isolation = isolation_of(record)
    if left := isolation.get("left_behind"):
        yield (
            f"its process was replaced: {first_three(left)}",
            "undo in the method what it changes outside of its model",
        )
    if failure := isolation.get(REPEATED, {}).get("failure"):
        yield f"it could not be repeated in a fresh process: {failure}", ADVICE
