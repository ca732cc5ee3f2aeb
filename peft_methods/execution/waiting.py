"""Waiting for processes, and for how long: each one's time counts while someone waits for it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from peft_methods.execution.estimating import in_words
from peft_methods.execution.processes import Worker
from peft_methods.execution.stacks import innermost

LOOK_SECONDS = 0.5  # between two looks at the clock


@dataclass(frozen=True)
class Patience:
    """Waits for workers, `timeout` seconds for each in all (None: for ever)."""

    timeout: float | None

    def wait(self, workers: Collection[Worker]) -> set[Any]:
        """Until one of them has something to say or it is time to look at the clock: the handles with something to say."""
        before = time.monotonic()
        ready = wait(
            [handle for worker in workers for handle in worker.handles()],
            None if self.timeout is None else LOOK_SECONDS,
        )
        spent = min(
            time.monotonic() - before, 2 * LOOK_SECONDS
        )  # or whoever stopped this run with Ctrl-Z would lose its cells
        for worker in workers:
            worker.seconds += spent
        return set(ready)

    def is_over(self, worker: Worker) -> bool:
        """Whether this one has taken too long."""
        return self.timeout is not None and worker.seconds > self.timeout

    def said_of(self, worker: Worker) -> tuple[str, str]:
        """What to say of one that has taken too long, and its stacks: it is asked what it is doing."""
        stacks = worker.stacks()
        where = innermost(stacks)
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
            f"it took more than {in_words(self.timeout or 0)} (--peft-timeout){at}: {doing}",
            stacks,
        )
