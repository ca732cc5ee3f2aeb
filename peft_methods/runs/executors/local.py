"""Run jobs on this machine: one isolated process each, on the devices of a free slot."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from peft_methods.runs.executors.base import Ended, Lost, Progress, Resources, RunEvent
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import Done, PrepareJob, RunJob, StartSignal
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.executors.standby import Standby

Job = TypeVar("Job", bound=RunJob | PrepareJob)


class LocalExecutor:
    """Start, poll and kill processes. Each of the `slots` runs one job at a time.

    On a GPU the next job's process loads data and model on the host while the present one trains.
    """

    def __init__(self, slots: Sequence[DeviceSet], scratch: Path) -> None:
        self.slots, self.scratch = tuple(slots), scratch
        gpus, threads = (sum(len(s.gpus) for s in slots), sum(s.threads for s in slots))
        self.capacity = Resources(gpus, threads)
        self.prefetches = gpus > 0 and len(self.slots) == 1
        self._server = fork_server(self.slots[0])
        self._running: dict[Worker, DeviceSet] = {}
        self._standby = Standby(self.new_worker)

    def new_worker(self) -> Worker:
        """Return a process that will take one job."""
        return Worker(self._server, self.scratch)

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> Worker:
        """Start a job on a free slot. A run's prefetched process takes it, if there is one."""
        is_run = isinstance(job, RunJob)
        worker, has_job = self._standby.take(job.name if isinstance(job, RunJob) else None)
        slot = self._free_slot()
        self._running[worker] = slot
        with contextlib.suppress(OSError):  # `poll` reports a process that died early
            if not has_job:
                worker.connection.send(_on(job, slot))
            if is_run:
                worker.connection.send(StartSignal(rate))
        return worker

    def _free_slot(self) -> DeviceSet:
        """Return a slot without a job. (A check of a recipe may share the only one.)"""
        free = list(self.slots)
        for slot in self._running.values():
            if slot in free:
                free.remove(slot)
        return free[0] if free else self.slots[0]

    def prefetch(self, job: RunJob | None) -> None:
        """Keep one process ready, its imports done; on a GPU it begins with the job at once."""
        self._standby.make()
        if job is not None and self.prefetches:
            self._standby.give(_on(job, self.slots[0]), job.name)

    def prefetched(self) -> str | None:
        """Return the key of the run that is being prefetched."""
        return self._standby.key

    def drop_prefetched(self) -> None:
        """End the standby process, if there is one."""
        self._standby.drop()

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Yield one event of every process that has one, after at most `timeout` seconds."""
        ready = set(
            wait([handle for worker in self._running for handle in worker.handles()], timeout)
        )
        for worker in list(self._running):
            if not ready.isdisjoint(worker.handles()) and (event := _event_of(worker)) is not None:
                yield event

    def has_started(self, handle: Any) -> bool:
        """Whether a job's process was forked: the fork server imports libraries before."""
        return handle.process is not None

    def stacks(self, handle: Any) -> str:
        """Return the stack of every thread of a process; empty if it does not answer."""
        return str(handle.stacks())

    def kill(self, handle: Any) -> None:
        """End a process and free its slot."""
        handle.kill()
        self._running.pop(handle, None)

    def close(self) -> None:
        """End every process."""
        for worker in list(self._running):
            self.kill(worker)
        self._standby.drop()


def _on(job: Job, devices: DeviceSet) -> Job:
    """Return the job with its devices, and with this process's environment as it is now."""
    return replace(job, devices=devices, environment=dict(os.environ))


def _event_of(worker: Worker) -> RunEvent | None:
    try:
        message = worker.receive()
    except (
        EOFError,
        OSError,
        pickle.UnpicklingError,
    ):  # the last: an interrupt cut a message in two
        status, reason = worker.fate()
        return Lost(worker, status, reason, worker.was_killed(), worker.last_stacks())
    if message is None:
        return None
    return Ended(worker, message) if isinstance(message, Done) else Progress(worker, message)
