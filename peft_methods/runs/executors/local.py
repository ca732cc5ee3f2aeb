"""Run jobs on this machine: one isolated process each, on the devices of a free slot."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.devices import DeviceSet, Resources
from peft_methods.runs.executors.jobs import Done, PrepareJob, RunJob, StartSignal
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.executors.standby import Standby

Job = TypeVar("Job", bound=RunJob | PrepareJob)


class LocalExecutor:
    """Start, poll and kill processes. Each of the `slots` runs one job at a time.

    A job that needs several GPUs takes several slots. On a GPU the next job's process loads data
    and model on the host while the present one trains.
    """

    def __init__(self, slots: Sequence[DeviceSet], scratch: Path) -> None:
        self.slots, self.scratch = tuple(slots), scratch
        self._devices = functools.reduce(DeviceSet.__or__, self.slots)
        self.capacity = self._devices.resources
        self.prefetch_limit = len(self.slots) if self._devices.gpus else 0
        self._server = fork_server(self._devices)
        self._running: dict[Worker, tuple[int, ...]] = {}  # the numbers of its slots
        self._standbys = [Standby(self.new_worker) for _ in range(max(1, self.prefetch_limit))]

    def new_worker(self) -> Worker:
        """Return a process that will take one job."""
        return Worker(self._server, self.scratch)

    def has_room(self, needs: Resources) -> bool:
        """Whether enough slots are free."""
        return _slots_for(needs) <= len(self._free())

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> Worker:
        """Start a job on free slots. A run's prefetched process takes it, if there is one."""
        name = job.name if isinstance(job, RunJob) else None
        taken = self._place(job.needs, name)
        worker, has_job = self._standby(taken).take(name)
        for standby in self._standbys:  # prefetched for a slot that is in use
            if name is not None and standby.key == name:
                standby.drop()
        self._running[worker] = taken
        with contextlib.suppress(OSError):  # `poll` reports a process that died early
            if not has_job:
                worker.connection.send(_on(job, self._joined(taken)))
            if name is not None:
                worker.connection.send(StartSignal(rate))
        return worker

    def _free(self) -> list[int]:
        """Return the numbers of the slots without a job."""
        used = {number for numbers in self._running.values() for number in numbers}
        return [number for number in range(len(self.slots)) if number not in used]

    def _place(self, needs: Resources, name: str | None) -> tuple[int, ...]:
        """Choose slots: the one where the job is prefetched, else those where no other one is.

        The check of a recipe may share a slot.
        """
        free = sorted(self._free(), key=lambda number: self._rank(number, name))
        return tuple(free[: _slots_for(needs)]) or (0,)

    def _rank(self, number: int, name: str | None) -> int:
        key = self._standby((number,)).key
        return 1 if key is None else 0 if key == name else 2

    def _standby(self, numbers: tuple[int, ...]) -> Standby:
        return self._standbys[numbers[0] if self.prefetch_limit else 0]

    def _joined(self, numbers: tuple[int, ...]) -> DeviceSet:
        return functools.reduce(DeviceSet.__or__, (self.slots[number] for number in numbers))

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        """Keep one process ready, its imports done; on GPUs, one for each that has a job at once.

        A job that needs several GPUs is not prefetched.
        """
        self._standbys[0].make()
        known = self.prefetched()
        new = [job for job in jobs if job.name not in known and _slots_for(job.needs) == 1]
        empty = [number for number in range(self.prefetch_limit) if not self._standbys[number].key]
        for number, job in zip(empty, new, strict=False):
            self._standbys[number].give(_on(job, self.slots[number]), job.name)

    def prefetched(self) -> frozenset[str]:
        """Return the names of the jobs that are being prefetched."""
        return frozenset(standby.key for standby in self._standbys if standby.key)

    def next_prefetched(self) -> frozenset[str]:
        """Return the names of those of them whose slot is free."""
        keys = (self._standby((number,)).key for number in self._free())
        return frozenset(key for key in keys if key)

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        """End the standby processes, except those of the jobs named in `keep` or without a job.

        Without `keep`, all end.
        """
        for standby in self._standbys:
            if not keep or (standby.key and standby.key not in keep):
                standby.drop()

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

    def is_queued(self, handle: Any) -> bool:
        """Return False: a started job has its slot."""
        return False

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
        self.drop_prefetched()


def _slots_for(needs: Resources) -> int:
    return max(1, needs.gpus)


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
