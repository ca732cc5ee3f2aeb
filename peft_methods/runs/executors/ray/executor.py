"""The executor `ray`: every run is a process on a node of a Ray cluster.

Only this process writes to the store, so nodes need no shared disk. A job's worker holds its CPUs
and GPUs; Ray places it on one node that has them all. It ends with the job.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from peft_methods.runs.executors.base import RunEvent
from peft_methods.runs.executors.devices import NO_GPU, DeviceSet, Resources
from peft_methods.runs.executors.jobs import PrepareJob, RunJob
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.executors.ray.messages import AHEAD
from peft_methods.runs.executors.ray.remote_job import RemoteJob
from peft_methods.runs.executors.ray.request import RayRequest, in_words
from peft_methods.runs.executors.ray.workers import Workers

LOOK_SECONDS = 1.0  # between two looks at which nodes there are
NODE_SECONDS = 60.0  # that a job waits for a node to come back
IDLE_SECONDS = 20.0  # that a worker without a job keeps its devices


class RayExecutor:
    """Start, poll and kill jobs on the nodes of a Ray cluster.

    The cluster decides what fits, not the `slots`. `notes` names nodes that are not used.
    """

    prefetch_limit = 0

    def __init__(
        self,
        slots: Sequence[DeviceSet],
        scratch: Path,
        request: RayRequest = RayRequest(),  # noqa: B008 - cannot change
    ) -> None:
        self.scratch, self._limit = scratch, request.workers
        self._cluster = request.cluster()
        self._ray = self._cluster.ray
        self._running: dict[RemoteJob, Resources] = {}
        self._workers = Workers(self._cluster)

    @property
    def notes(self) -> list[str]:
        """Return which nodes are not used, and why."""
        return self._cluster.warnings

    @property
    def capacity(self) -> Resources:
        """The GPUs and CPUs of the nodes that the session may use."""
        return self._cluster.capacity()

    def has_room(self, needs: Resources) -> bool:
        """Whether a node has room for a job; where nothing runs, there is."""
        used = len(self._running)
        places = self._cluster.places(needs)
        return not used or used < min(places, self._limit or places)

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> RemoteJob:
        """Start a job on a node with its GPUs and CPUs."""
        inbox = Path(tempfile.mkdtemp(prefix="arrived-", dir=self.scratch))
        started = RemoteJob(
            self._ray, job, rate, inbox, new_worker=lambda: self._workers.take(job.needs)
        )
        self._running[started] = job.needs
        return started

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        """Do nothing: a node's devices are idle until a job is placed there."""

    def prefetched(self) -> frozenset[str]:
        """Return no name, since nothing is prefetched."""
        return frozenset()

    next_prefetched = prefetched

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        """Do nothing, since nothing is prefetched."""

    def new_worker(self) -> Worker:
        """Return a process on this machine."""
        return Worker(fork_server(NO_GPU), self.scratch)

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Yield the events of the pieces that have arrived.

        Once a job's result is here, its files are waited for too: they belong to it.
        """
        yield from self._stranded()
        for job in self._ready(timeout):
            pieces = 0
            while job in self._running and self._has_piece(job, pieces):
                yield from job.advance()
                pieces += 1

    def _stranded(self) -> Iterator[RunEvent]:
        """Give up jobs for which the cluster has had no node for a while."""
        for job, needs in list(self._running.items()):
            if (
                job.waiting_seconds > NODE_SECONDS
                and not (job.has_ended or job.is_placed())
                and not self._cluster.places(needs)
            ):
                yield job.give_up(f"no node of the Ray cluster has {in_words(needs)} for it")

    def _has_piece(self, job: RemoteJob, pieces: int) -> bool:
        """Whether to read another piece of a job now, after `pieces`; waits for one if needed."""
        if job.has_ended or (pieces >= AHEAD and not job.has_arrived):
            return False
        seconds = None if job.has_arrived else 0
        return bool(self._ray.wait([job.waits_for], timeout=seconds, fetch_local=False)[0])

    def _ready(self, timeout: float | None) -> list[RemoteJob]:
        """Return the jobs that have something, after at most `timeout` seconds (None: 1 s)."""
        jobs = {job.waits_for: job for job in self._running if not job.has_ended}
        seconds = LOOK_SECONDS if timeout is None else timeout
        self._workers.close_idle(IDLE_SECONDS)
        if not jobs:
            time.sleep(seconds)
            return []
        ray, waiting = self._ray, list(jobs)
        if not ray.wait(waiting, timeout=seconds, fetch_local=False)[0]:
            return []
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        return [jobs[one] for one in ready]

    def is_queued(self, handle: Any) -> bool:
        """Whether a job waits for a node."""
        return not handle.is_placed()

    def has_started(self, handle: Any) -> bool:
        """Whether a job's process runs."""
        return bool(handle.has_started())

    def stacks(self, handle: Any) -> str:
        """Return the stack of every thread of a job's process; empty if it does not answer."""
        return str(handle.stacks())

    def kill(self, handle: Any) -> None:
        """End a job's process, which frees its devices."""
        self._end([handle])

    def leave_out(self, handle: Any, reason: str) -> str:
        """Return '': a job whose GPU failed is tried again by another worker, on any node."""
        return ""

    def _end(self, jobs: Sequence[RemoteJob]) -> None:
        """End jobs. If that is interrupted, `close` does it again."""
        running = {job: self._running[job] for job in jobs if job in self._running}
        for job in running:
            job.forget()
        # One that has never answered has no files yet, and may still wait for its devices.
        busy = [job.worker for job in running if not job.has_ended and self._may_have_files(job)]
        stopped = self._workers.stop(busy)
        for job, needs in running.items():
            if job.worker_is_free or job.worker in stopped:
                self._workers.give_back(job.worker, needs)
            elif not job.has_ended:
                self._workers.kill(job.worker)
        self._workers.end(
            [job.worker for job in running if job.has_ended and not job.worker_is_free]
        )
        for job in running:
            del self._running[job]

    def _may_have_files(self, job: RemoteJob) -> bool:
        return job.is_placed() or self._workers.had_a_job(job.worker)

    def close(self) -> None:
        """End every job and worker. The connection lasts as long as this process, as Ray's do."""
        self._end(list(self._running))
        self._workers.close()
