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
        """Have one, its imports done by the time it is needed."""
        self._worker = self._worker or self._new_worker()

    def give(self, job: CellJob) -> None:
        """Have it begin this job, unless it has one."""
        if self.cell is None:
            self.make()
            assert self._worker is not None
            self.cell = job.cell
            with contextlib.suppress(OSError):  # a process that died early shows when it is listened to
                self._worker.connection.send(job)

    def take(self, cell: Cell | None = None) -> tuple[Worker, bool]:
        """A process for this cell, and whether it has its job; a new one where the spare one has another's."""
        if self.cell is not None and self.cell != cell:
            return self._new_worker(), False
        worker, has_job = self._worker or self._new_worker(), self.cell is not None
        self._worker = self.cell = None
        return worker, has_job

    def drop(self, *, unless: Collection[Cell] = ()) -> None:
        """End it, unless the cell whose job it has is one of these."""
        if self._worker is not None and self.cell not in unless:
            self._worker.kill()
            self._worker = self.cell = None
