"""Events that an executor sends to its watchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec


class Event(NamedTuple):
    """A change in a run's state.

    The run waits for a machine (`waits`), started (no other field is set), reported progress
    (`news`), is retried (`failed`: how the last attempt ended; `workers`, if known, is how many run
    at a time from now on), or ended with a `record`.
    """

    run: RunSpec
    news: dict[str, Any] | None = None
    record: Record | None = None
    failed: str = ""
    workers: int = 0
    waits: bool = False


Watcher = Callable[[Event], None]
