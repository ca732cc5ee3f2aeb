"""The process that the next job will run in, made and at work while the present one trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from peft_methods.cells import Cell
from peft_methods.execution.processes import Worker
from peft_methods.execution.worker import CellJob


class Spare:
    """At most one process without a turn. `cell` is the one whose job it has already, doing what of it needs no GPU."""

    def __init__(self, new_worker: Callable[[], Worker]) -> None:
        self.cell: Cell | None = None
        self._new_worker = new_worker
        self._worker: Worker | None = None

    def make(self) -> None:
        """Have one that lives, its imports done by the time it is needed."""
        self._forget_the_dead()
        self._worker = self._worker or self._new_worker()

    def give(self, job: CellJob) -> None:
        """Have it begin this job, unless it has one."""
        self.make()
        if self.cell is None:
            assert self._worker is not None
            self.cell = job.cell
            with contextlib.suppress(
                OSError
            ):  # a process that died early shows when it is listened to
                self._worker.connection.send(job)

    def take(self, cell: Cell | None = None) -> tuple[Worker, bool]:
        """A process, and whether it has this cell's job already; a new one where the spare one has another's job."""
        self._forget_the_dead()
        if self.cell is not None and self.cell != cell:
            return self._new_worker(), False
        worker, has_job = self._worker or self._new_worker(), self.cell is not None
        self._worker = self.cell = None
        return worker, has_job

    def drop(self) -> None:
        """End it, if there is one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = self.cell = None

    def drop_unless(self, cells: Collection[Cell]) -> None:
        """End it if it has the job of a cell that is none of these."""
        if self.cell is not None and self.cell not in cells:
            self.drop()

    def _forget_the_dead(self) -> None:
        """What ended before its turn is no attempt at its cell: in its turn that has a process of its own."""
        if self._worker is not None and self._worker.has_ended():
            self.drop()
