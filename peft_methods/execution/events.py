"""What an executor tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft_methods.cells import Cell
from peft_methods.records import Record


@dataclass(frozen=True)
class Event:
    """Something to show: a cell started, came further (`news`), is tried again (`failed`: how it ended), or ended with a record."""

    cell: Cell
    news: dict[str, Any] | None = None
    record: Record | None = None
    failed: str = ""


Watcher = Callable[[Event], None]
