"""What planting a mistake in an honest table needs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from table_builders import Table, TableRow

PARTS = ("lora", "ia3", "bitfit", "adapter", "qlora")


@dataclass(frozen=True)
class Flaw:
    """A table with a mistake, the row that has it, and the columns that show it."""

    table: Table
    subject: str
    needed: tuple[str, ...]


Planter = Callable[[random.Random, Table], Flaw | None]


def part(table: Table, *methods: str, costs: bool = False) -> tuple[int, TableRow] | None:
    """Return a row of a method that trains a part, with costs if they are wanted."""
    index = table.index_of(*(methods or PARTS))
    if index is None or (costs and not table.rows[index].train_seconds):
        return None
    return index, table.rows[index]


def with_flaw(table: Table, index: int, needed: str, **values: object) -> Flaw:
    changed = table.changed(index, **values)
    return Flaw(changed, changed.rows[index].name, tuple(needed.split()))
