"""Events that an executor sends to its watchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft_methods.cells import Cell
from peft_methods.records import Record


@dataclass(frozen=True)
class Event:
    """A change in a run's state.

    The run started (no other field is set), reported progress (`news`), is retried (`failed`: how
    the last attempt ended), or ended with a `record`.
    """

    cell: Cell
    news: dict[str, Any] | None = None
    record: Record | None = None
    failed: str = ""


Watcher = Callable[[Event], None]
