"""Failed attempts at runs that also succeeded."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.runs.record import Record


def without_attempts(records: Sequence[Record]) -> list[Record]:
    """Drop the failed attempts at runs that also succeeded.

    A run's key takes long to compute. It is compared only where recipe, method and seed are equal.
    """
    good = {place_of(record) for record in records if record.status == "ok"}
    twice = good & {place_of(record) for record in records if record.status != "ok"}
    found = [record for record in records if record.status == "ok" and place_of(record) in twice]
    ended_well = {record.key for record in found}
    return [
        record
        for record in records
        if record.status == "ok" or place_of(record) not in twice or record.key not in ended_well
    ]


def place_of(record: Record) -> tuple[str, str, int]:
    """Return what runs with the same key have in common: recipe, method and seed."""
    return record.recipe_name, record.method_name, record.seed
