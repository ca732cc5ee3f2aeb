"""The standby worker: a process for the next job, created while the current one trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from peft_methods.cells import Cell
from peft_methods.execution.processes import Worker
from peft_methods.execution.worker import CellJob


class Spare:
    """At most one standby worker. `cell` is the run it is preparing on the CPU."""

    def __init__(self, new_worker: Callable[[], Worker]) -> None:
        self.cell: Cell | None = None
        self._new_worker = new_worker
        self._worker: Worker | None = None

    def make(self) -> None:
        """Make sure a living standby worker exists, so that its imports are done in time."""
        self._forget_the_dead()
        self._worker = self._worker or self._new_worker()

    def give(self, job: CellJob) -> None:
        """Send this job to the standby worker, unless it has one."""
        self.make()
        if self.cell is None:
            assert self._worker is not None
            self.cell = job.cell
            with contextlib.suppress(
                OSError
            ):  # a process that died early shows when it is listened to
                self._worker.connection.send(job)

    def take(self, cell: Cell | None = None) -> tuple[Worker, bool]:
        """Return a worker, and whether it already has this run's job.

        If the standby worker has another run's job, a new worker is returned.
        """
        self._forget_the_dead()
        if self.cell is not None and self.cell != cell:
            return self._new_worker(), False
        worker, has_job = self._worker or self._new_worker(), self.cell is not None
        self._worker = self.cell = None
        return worker, has_job

    def drop(self) -> None:
        """End the standby worker, if there is one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = self.cell = None

    def drop_unless(self, cells: Collection[Cell]) -> None:
        """End the standby worker if its run is not among these."""
        if self.cell is not None and self.cell not in cells:
            self.drop()

    def _forget_the_dead(self) -> None:
        """Discard a standby worker that has ended.

        That is not an attempt at its run: the run gets a new process in its turn.
        """
        if self._worker is not None and self._worker.has_ended():
            self.drop()
