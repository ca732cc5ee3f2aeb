"""The standby worker: the next job's process, at work on the CPU while another one trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from peft_methods.runs.executors.process import Worker


class Standby:
    """At most one process that waits for its turn. `key` names the run whose job it already has."""

    def __init__(self, new_worker: Callable[[], Worker]) -> None:
        self._key: str | None = None
        self._new_worker = new_worker
        self._worker: Worker | None = None

    @property
    def key(self) -> str | None:
        """The key of the run whose job the process has; None without a living process or a job."""
        self._drop_dead()
        return self._key

    @property
    def process(self) -> int | None:
        """The id of the process, if there is one that was forked."""
        return None if self._worker is None else self._worker.process

    def make(self) -> None:
        """Start the process unless one is alive, so that its imports are done when it is needed."""
        self._drop_dead()
        self._worker = self._worker or self._new_worker()

    def give(self, job: Any, key: str) -> None:
        """Send the process this job, unless it already has one."""
        self.make()
        if self._key is None:
            assert self._worker is not None
            self._key = key
            with contextlib.suppress(OSError):  # `take` replaces a process that died early
                self._worker.connection.send(job)

    def take(self, key: str | None = None) -> tuple[Worker, bool]:
        """Return a process and whether it already has this run's job.

        A new process is returned while the standby one holds another run's job.
        """
        self._drop_dead()
        if self._key is not None and self._key != key:
            return self._new_worker(), False
        worker, has_job = self._worker or self._new_worker(), self._key is not None
        self._worker = self._key = None
        return worker, has_job

    def drop(self) -> None:
        """End the process, if there is one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = self._key = None

    def _drop_dead(self) -> None:
        """Forget a process that ended before its turn: this does not count as an attempt."""
        if self._worker is not None and self._worker.has_ended():
            self.drop()
