"""Parked workers: processes that a run has left clean, and that wait for the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft_methods.runs.executors.jobs import RunJob
from peft_methods.runs.executors.process import Worker


class ParkedWorkers:
    """The clean processes without a job, at most one for each slot."""

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self._last: dict[Worker, RunJob] = {}  # of every living process that may be shared

    def __contains__(self, worker: Any) -> bool:
        return worker in self._workers.values()

    def slots(self) -> Iterable[int]:
        """Return the numbers of the slots that have one."""
        return self._workers.keys()

    def take(self, slot: int, job: Any) -> Worker | None:
        """Return the process of a slot if it can do this job. It is no longer parked then.

        CUDA reads the setting for deterministic products only once.
        """
        worker = self._workers.get(slot)
        if worker is None or not isinstance(job, RunJob) or not job.may_share_process:
            return None
        if worker.has_ended() or self._last[worker].run.deterministic != job.run.deterministic:
            return None
        del self._workers[slot]
        worker.begin()
        return worker

    def park(self, slot: int, worker: Worker) -> None:
        """Keep a clean process for the next run on its slot."""
        self._workers[slot] = worker

    def end(self, slots: Iterable[int]) -> None:
        """End the processes of these slots."""
        for slot in list(slots):
            if (worker := self._workers.pop(slot, None)) is not None:
                self.forget(worker)
                worker.kill()

    def started(self, worker: Worker, job: Any) -> None:
        """Remember which job a process has."""
        if isinstance(job, RunJob) and job.may_share_process:
            self._last[worker] = job

    def forget(self, worker: Worker) -> None:
        """Forget a process that has ended."""
        self._last.pop(worker, None)

    def has_rows_of(self, job: RunJob) -> bool:
        """Whether a living process that the job may share has its model's files and rows in memory.

        It may have a job at present.
        """
        if not job.may_share_process:
            return False
        wanted = job.run.recipe
        recipes = [one.run.recipe for one in self._last.values()]
        return any((one.model, one.data) == (wanted.model, wanted.data) for one in recipes)
