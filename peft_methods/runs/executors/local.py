"""Run jobs on this machine, in isolated processes on the devices of a free slot."""

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

from peft_methods.profiling.environment import usable_cores
from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.cores import LEAST_CORES
from peft_methods.runs.executors.devices import DeviceSet, Resources
from peft_methods.runs.executors.gpu_failure import GpuHealth
from peft_methods.runs.executors.host_memory import MemoryForPrefetching
from peft_methods.runs.executors.jobs import Beside, Done, PrepareJob, RunJob, StartSignal
from peft_methods.runs.executors.parked import ParkedWorkers
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.executors.standby import Standby

Job = TypeVar("Job", bound=RunJob | PrepareJob)
TURN = "turn.lock"  # in the scratch folder: held by the run that trains


class LocalExecutor:
    """Start, poll and kill processes. Each of the `slots` runs one job at a time.

    A job that needs several GPUs takes several slots. A run that leaves its process clean leaves it
    to the next run of its slot, if both may share one. On a GPU, a run with other rows has its own
    process instead, which loads data and model on the host while the present run trains. `turns`:
    runs on several GPUs train in turns, because the host is too small to serve two at once; by
    default its cores decide.
    """

    def __init__(
        self, slots: Sequence[DeviceSet], scratch: Path, *, turns: bool | None = None
    ) -> None:
        self.slots, self.scratch = tuple(slots), scratch
        self.notes: list[str] = []
        self._devices = _joined(self.slots)
        self._places = set(range(len(self.slots)))  # numbers of the slots that are in use
        small = usable_cores() < LEAST_CORES * len(self._devices.gpus)
        has_turns = len(self._devices.gpus) > 1 and (small if turns is None else turns)
        self._beside = Beside(len(self.slots), str(scratch / TURN) if has_turns else "")
        self._server = fork_server(self._devices)
        self._health = GpuHealth(self._devices.gpus)
        self._memory = MemoryForPrefetching()
        self._running: dict[Worker, tuple[int, ...]] = {}  # the numbers of its slots
        self._parked = ParkedWorkers()
        self._standbys = [Standby(self.new_worker) for _ in range(max(1, self.prefetch_limit))]
        self._wanted: list[RunJob] = []  # the next jobs that are not prefetched yet
        self._suspect: set[int] = set()  # slots that failed once while there was no other

    @property
    def capacity(self) -> Resources:
        """The resources of all slots that are not left out."""
        return _joined([self.slots[number] for number in self._places]).resources

    @property
    def prefetch_limit(self) -> int:
        """The number of slots with a GPU."""
        return len(self._places) if self._devices.gpus else 0

    def new_worker(self) -> Worker:
        """Return a process that will take one job."""
        return Worker(self._server, self.scratch)

    def has_room(self, needs: Resources) -> bool:
        """Whether enough slots are free."""
        return _slots_for(needs) <= len(self._free())

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> Worker:
        """Start a job on free slots.

        A run's prefetched process takes it, if there is one, or else a clean one of its slot.
        """
        name = job.name if isinstance(job, RunJob) else None
        taken = self._place(job.needs, name)
        worker, has_job = self._worker_for(job, name, taken)
        for standby in self._standbys:  # prefetched for a slot that is in use
            if name is not None and standby.key == name:
                standby.drop()
        self._wanted = [one for one in self._wanted if one.name != name]
        self._running[worker] = taken
        self._parked.started(worker, job)
        with contextlib.suppress(OSError):  # `poll` reports a process that died early
            if not has_job:
                devices = _joined([self.slots[number] for number in taken])
                worker.connection.send(_on(job, devices))
            if name is not None:
                worker.connection.send(StartSignal(rate, self._beside, _may_stay(job)))
        return worker

    def _worker_for(
        self, job: RunJob | PrepareJob, name: str | None, taken: Sequence[int]
    ) -> tuple[Worker, bool]:
        """Return a process for a job, and whether it already has it."""
        standby = self._standby(taken[0])
        is_prefetched = name is not None and standby.key == name
        if not is_prefetched and (parked := self._parked.take(taken[0], job)) is not None:
            return parked, False
        self._parked.end(taken)  # the new process needs the memory
        return standby.take(name)

    def _free(self) -> list[int]:
        """Return the numbers of the slots without a job."""
        used = {number for numbers in self._running.values() for number in numbers}
        return sorted(self._places - used)

    def _place(self, needs: Resources, name: str | None) -> tuple[int, ...]:
        """Choose slots: the one where the job is prefetched, else those where no other one is.

        The check of a recipe may share a slot.
        """
        free = sorted(
            self._free(),
            key=lambda number: (self._rank(number, name), number not in self._parked.slots()),
        )
        return tuple(free[: _slots_for(needs)]) or (min(self._places, default=0),)

    def _rank(self, number: int, name: str | None) -> int:
        key = self._standby(number).key
        return 1 if key is None else 0 if key == name else 2

    def _standby(self, number: int) -> Standby:
        return self._standbys[number if self._devices.gpus else 0]

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        """Keep one process ready, its imports done; on GPUs, one for each that has a job at once.

        A job that needs several GPUs is not prefetched, nor one whose rows a process keeps that it
        may share.
        """
        self._standby(min(self._places, default=0)).make()
        known = self.prefetched()
        self._wanted = [
            job
            for job in jobs
            if job.name not in known
            and _slots_for(job.needs) == 1
            and not self._parked.has_rows_of(job)
        ]
        self._prefetch_wanted()

    def _prefetch_wanted(self) -> None:
        """Give waiting jobs to the slots without one, while the host's memory lasts."""
        if not self._devices.gpus:
            return
        for number in sorted(self._places):
            if not self._wanted:
                break
            if self._standbys[number].key:
                continue
            loading = [one.process for one in self._standbys if one.key]
            if loading and not self._memory.suffices(loading):
                self.notes += self._memory.note(len(loading), self.prefetch_limit)
                break
            job = self._wanted.pop(0)
            self._standbys[number].give(_on(job, self.slots[number]), job.name)

    def prefetched(self) -> frozenset[str]:
        """Return the names of the jobs that are being prefetched."""
        return frozenset(standby.key for standby in self._standbys if standby.key)

    def next_prefetched(self) -> frozenset[str]:
        """Return the names of those of them whose slot is free."""
        keys = (self._standby(number).key for number in self._free())
        return frozenset(key for key in keys if key)

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        """End the standby processes, except those of the jobs named in `keep` or without a job.

        Without `keep`, all end, and the processes that wait for another run.
        """
        if not keep:
            self._parked.end(self._parked.slots())
        self._wanted = [job for job in self._wanted if job.name in keep]
        for standby in self._standbys:
            if not keep or (standby.key and standby.key not in keep):
                standby.drop()

    def leave_out(self, handle: Any, reason: str) -> str:
        """Leave the devices of a job out for the rest of the session, and return their names.

        The last one is left out only at its second failure: a fresh process may well succeed.
        """
        numbers = set(self._running.get(handle, ())) & self._places
        failed = {n for n in numbers if any(map(self._health.problem, self.slots[n].gpus))}
        numbers = failed or numbers
        is_first_of_last = numbers == self._places and not numbers <= self._suspect
        if is_first_of_last or not numbers or not self._devices.gpus:
            self._suspect |= numbers
            return ""
        names = ", ".join(_joined([self.slots[number] for number in sorted(numbers)]).gpus)
        self._places -= numbers
        self._parked.end(numbers)
        for number in numbers:
            self._standby(number).drop()
        left = f"{len(self._places)} of {len(self.slots)} left"
        self.notes.append(f"{names} is left out since it failed ({reason}); {left}.")
        return names

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Yield one event of every process that has one, after at most `timeout` seconds."""
        ready = set(
            wait([handle for worker in self._running for handle in worker.handles()], timeout)
        )
        for worker in list(self._running):
            if not ready.isdisjoint(worker.handles()) and (event := _event_of(worker)) is not None:
                if isinstance(event, Progress) and "step" in event.news:
                    self._memory.learn(worker.process)
                    self._prefetch_wanted()
                yield self._with_health(worker, event)

    def _with_health(self, worker: Worker, event: RunEvent) -> RunEvent:
        """Return the event with the failure of the job's GPU, if NVML says that it has failed."""
        if isinstance(event, Progress) or (isinstance(event, Ended) and not event.done.may_pass):
            return event
        gpus = [gpu for number in self._running[worker] for gpu in self.slots[number].gpus]
        problem = next(filter(None, map(self._health.problem, gpus)), "")
        return event.with_failure(problem) if problem else event

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
        """Free a job's slot, and end its process unless it waits for another run."""
        numbers = self._running.pop(handle, ())
        if handle in self._parked:
            return
        if handle.is_clean and numbers and set(numbers) <= self._places:
            self._parked.park(numbers[0], handle)
        else:
            self._parked.forget(handle)
            handle.kill()

    def close(self) -> None:
        """End every process."""
        for worker in list(self._running):
            self.kill(worker)
        self.drop_prefetched()


def _may_stay(job: RunJob | PrepareJob) -> bool:
    return isinstance(job, RunJob) and job.may_share_process


def _slots_for(needs: Resources) -> int:
    return max(1, needs.gpus)


def _joined(sets: Sequence[DeviceSet]) -> DeviceSet:
    return functools.reduce(DeviceSet.__or__, sets) if sets else DeviceSet((), 0)


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
    if isinstance(message, Done):
        worker.is_clean = message.is_clean
        return Ended(worker, message)
    return Progress(worker, message)
