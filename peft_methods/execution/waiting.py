"""Waiting for workers, with a timeout for each. Only time spent waiting counts."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from peft_methods.execution.estimating import in_words
from peft_methods.execution.processes import Worker
from peft_methods.execution.stacks import innermost_frame

POLL_SECONDS = 0.5  # between two checks of the clock


@dataclass(frozen=True)
class Patience:
    """Timeouts of workers: `timeout` seconds in total for each; None means no limit."""

    timeout: float | None

    def wait(self, workers: Collection[Worker]) -> set[Any]:
        """Wait until a worker is ready or the clock must be checked; return the ready handles."""
        before = time.monotonic()
        ready = wait(
            [handle for worker in workers for handle in worker.handles()],
            None if self.timeout is None else POLL_SECONDS,
        )
        # Capped, so that runs do not time out while Ctrl-Z has stopped this process.
        spent = min(time.monotonic() - before, 2 * POLL_SECONDS)
        for worker in workers:
            worker.seconds += spent
        return set(ready)

    def is_over(self, worker: Worker) -> bool:
        """Whether this worker has exceeded its timeout."""
        return self.timeout is not None and worker.seconds > self.timeout

    def said_of(self, worker: Worker) -> tuple[str, str]:
        """Describe a worker that timed out, and return its stacks too.

        The worker is asked what it is doing.
        """
        stacks = worker.stacks()
        where = innermost_frame(stacks)
        doing = (
            f"it was in {where}"
            if where
            else "it did not answer when asked for its stack (stopped?)"
        )
        at = (
            f", in epoch {worker.news['epoch']} of {worker.news['epochs']}"
            if worker.news and "epoch" in worker.news
            else ""
        )
        return (
            f"it took more than {in_words(self.timeout or 0)} (timeout){at}: {doing}",
            stacks,
        )
