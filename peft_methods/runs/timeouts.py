"""Time limits of jobs. A job's time counts only while someone waits for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from peft_methods.runs.executors.base import Executor, Handle, RunEvent
from peft_methods.runs.executors.stack_dump import innermost_frame
from peft_methods.utils.units import format_duration

LOOK_SECONDS = 0.5  # between two looks at the clock


class Timeouts:
    """Count the seconds each job was waited for; `limit` seconds are allowed (None: any number)."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.interval = None if limit is None else LOOK_SECONDS
        self._seconds: dict[Handle, float] = {}

    @contextmanager
    def counting(self, handles: Collection[Handle]) -> Iterator[None]:
        """Add the time spent inside to every job.

        An interval counts at most twice the polling interval: a session stopped with Ctrl-Z would
        otherwise lose its runs.
        """
        before, waiting = time.monotonic(), tuple(handles)
        yield
        spent = min(time.monotonic() - before, 2 * LOOK_SECONDS)
        for handle in waiting:
            self._seconds[handle] = self._seconds.get(handle, 0.0) + spent

    def poll(self, executor: Executor, handles: Collection[Handle]) -> Iterator[RunEvent]:
        """Yield the executor's events. The wait for the first counts as time of all `handles`.

        It does not count for those that wait for a machine.
        """
        events = executor.poll(self.interval)
        with self.counting([one for one in handles if not executor.is_queued(one)]):
            first = next(events, None)
        return itertools.chain(() if first is None else (first,), events)

    def is_over(self, handle: Handle) -> bool:
        """Whether a job has used up its time."""
        return self.limit is not None and self._seconds.get(handle, 0.0) > self.limit

    def message(
        self, stacks: str, news: dict[str, Any] | None = None, *, started: bool = True
    ) -> str:
        """Describe where a job was when its time ran out. `news` is its last progress report.

        A job whose process has not `started` was still waiting for its libraries to be imported.
        """
        where = innermost_frame(stacks)
        doing = f"it was in {where}" if where else "it did not report its stack (stopped?)"
        if not started:
            doing = "its process was still importing its libraries; allow more time"
        known = news is not None and "epoch" in news
        epoch = f", in epoch {news['epoch']} of {news['epochs']}" if news and known else ""
        allowed = format_duration(self.limit or 0)
        return f"it took more than {allowed} (setting `timeout`){epoch}: {doing}"
