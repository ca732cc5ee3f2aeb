"""Time limits of jobs. A job's time counts only while someone waits for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from peft_methods.runs.executors.base import Executor, Handle, RunEvent
from peft_methods.runs.executors.stack_dump import innermost_frame
from peft_methods.utils.units import format_duration

LOOK_SECONDS = 0.5  # between two looks at the clock


class Timeouts:
    """Count the seconds each job was waited for; `limit` seconds are allowed (None: any number).

    One clock counts for all jobs, so that a look at them costs the same however many there are.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self.interval = None if limit is None else LOOK_SECONDS
        self._waited = 0.0
        self._began: dict[Handle, float] = {}  # in the order of the starts

    def begin(self, handle: Handle) -> None:
        """Count a job's time from now on."""
        self._began[handle] = self._waited

    def end(self, handle: Handle) -> None:
        """Forget a job."""
        self._began.pop(handle, None)

    def poll(self, executor: Executor) -> Iterator[RunEvent]:
        """Yield the executor's events. The wait for the first counts as time of all jobs.

        An interval counts at most twice the polling interval: a session stopped with Ctrl-Z would
        otherwise lose its runs.
        """
        events, before = executor.poll(self.interval), self._clock()
        first = next(events, None)
        self._waited += min(self._clock() - before, 2 * LOOK_SECONDS)
        return itertools.chain(() if first is None else (first,), events)

    def expired(self) -> list[Handle]:
        """Return the jobs that have used up their time, the first ones first."""
        if self.limit is None:
            return []
        found, last = [], self._waited - self.limit
        for handle, began in self._began.items():
            if began >= last:
                break
            found.append(handle)
        return found

    def describe(
        self, executor: Executor, handle: Handle, news: dict[str, Any] | None = None
    ) -> tuple[str, str]:
        """Return a message on a job whose time is over, and the stacks of its process."""
        started, stacks = executor.has_started(handle), executor.stacks(handle)
        return self.message(stacks, news, started=started), stacks

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
