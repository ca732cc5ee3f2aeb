"""How much a report of very many runs lists, so that a browser can still show it."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.sections import Section
from peft_methods.utils.words import counted

MOST_RUNS = 10_000  # listed in a report: about 16 MB of HTML


def listed_of_each(sections: Sequence[Section]) -> int | None:
    """Return how many runs of each method a section lists; None: all of them.

    A finding lists as many cases, and each case as many runs.
    """
    rows = sum(len(section.comparison.rows()) for section in sections)
    return None if _runs(sections) <= MOST_RUNS else max(1, MOST_RUNS // rows)


def length_note(listed: int, of_each: int | None, sections: Sequence[Section]) -> list[str]:
    """Say what a report leaves out; empty if it lists everything."""
    if of_each is None:
        return []
    first = "first" if of_each == 1 else f"first {of_each}"
    return [
        f"This report lists {listed:,} of {counted(_runs(sections), 'run')}: of each section the "
        f"{first} of each method, and of each finding the {first} cases and runs. Charts of single "
        "methods are left out. All figures are of all runs."
    ]


def _runs(sections: Sequence[Section]) -> int:
    return sum(
        record.role == "main" for section in sections for record in section.comparison.records
    )
