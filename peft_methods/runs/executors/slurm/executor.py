"""Run jobs through Slurm, in arrays of jobs with equal needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from peft_methods.runs.executors.base import RunEvent
from peft_methods.runs.executors.devices import NO_GPU, DeviceSet, Resources
from peft_methods.runs.executors.jobs import PrepareJob, RunJob
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.executors.scratch import JOBS
from peft_methods.runs.executors.slurm import commands
from peft_methods.runs.executors.slurm.commands import JobState, SlurmError
from peft_methods.runs.executors.slurm.ends import FORGOTTEN, End, end_of, end_of_failed
from peft_methods.runs.executors.slurm.files import JobFolder
from peft_methods.runs.executors.slurm.handle import (
    CHECK,
    SlurmHandle,
    is_stale,
    last_line,
    name_of,
)
from peft_methods.runs.executors.slurm.request import SETTING, SlurmRequest
from peft_methods.runs.executors.slurm.submission import submit
from peft_methods.utils.errors import OptionError

POLL_SECONDS = 0.5  # between two looks into the folder
STATE_SECONDS = 5.0  # between two questions to Slurm's controller
# A file that a node wrote may be seen that much later here.
FILE_SECONDS = 10.0
STACK_SECONDS = 5.0
CHECK_MINUTES = 60  # at most, for the check of a recipe: short jobs start sooner


class SlurmExecutor:
    """Submit jobs, watch their files and states, and cancel them.

    `scratch` is the folder of all files; nodes must see it. It also remembers the jobs of a session
    that detached or was killed: the next one that starts the same work continues with its job.
    """

    prefetch_limit = 0

    def __init__(
        self,
        slots: Sequence[DeviceSet],
        scratch: Path,
        request: SlurmRequest = SlurmRequest(),  # noqa: B008 - cannot change
    ) -> None:
        self.request, self.scratch, self._most = request, scratch, len(slots)
        one = slots[0].resources
        self.capacity = Resources(one.gpus * len(slots), one.threads * len(slots))
        self.folder = JobFolder((scratch / JOBS).absolute())
        self.folder.prepare()
        self._earlier = self._assigned()
        self._states: dict[str, JobState] | None = None  # of the earlier jobs
        self._running: list[SlurmHandle] = []
        self._unwanted: list[str] = []  # ids of jobs to cancel
        self._checks: list[SlurmHandle] = []  # that have ended
        self._detached = False
        self._asked = 0.0

    def _assigned(self) -> dict[str, str]:
        """Return the jobs of earlier sessions, without those whose record is in the store."""
        found = {}
        for name, job_id in self.folder.assigned().items():
            result = self.folder.of(job_id).read_result()
            if result is None or not is_stale(result):
                found[name] = job_id
            else:
                self.folder.remove(name, job_id)
        return found

    def new_worker(self) -> Worker:
        """Return a process of this machine for other work of the session."""
        return Worker(fork_server(NO_GPU), self.scratch)

    def has_room(self, needs: Resources) -> bool:
        """Whether Slurm's queue may hold another job of this session."""
        return len(self._running) < self._most

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> SlurmHandle:
        """Take a job for the next submission, or continue with an earlier session's job for it.

        Every epoch is saved, so that a requeued run resumes.
        """
        if isinstance(job, RunJob):
            job = replace(job, checkpoint=True)
        handle = SlurmHandle(name_of(job), job, rate)
        earlier = self._earlier.pop(handle.name, None)
        if earlier is not None and self._continues(handle, earlier):
            handle.job_id = earlier
        self._running.append(handle)
        return handle

    def _continues(self, handle: SlurmHandle, job_id: str) -> bool:
        """Whether an earlier session's job is alive, or has a result that was not seen yet.

        Another job's files are removed.
        """
        result = self.folder.of(job_id).read_result()
        if result is None:
            if self._states is None:  # for all of them at once
                self._states = commands.states([job_id, *self._earlier.values()])
            state = JobState() if self._states is None else self._states.get(job_id)
            found = state is not None and end_of(state) is None
        else:
            found = not is_stale(result)
        if not found:
            self.folder.remove(handle.name, job_id)
        return found

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        """Do nothing: a job begins when Slurm starts it."""

    def prefetched(self) -> frozenset[str]:
        """Return no names."""
        return frozenset()

    def next_prefetched(self) -> frozenset[str]:
        """Return no names."""
        return frozenset()

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        """Do nothing."""

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Submit what was started, then yield events, after at most `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if timeout != 0:
                self.submit()
            self._cancel()
            events = self._news() or self._ends()
            left = POLL_SECONDS if end is None else end - time.monotonic()
            if events or left <= 0:
                break
            time.sleep(min(POLL_SECONDS, left))
        yield from events

    def submit(self) -> None:
        """Submit all started jobs: those with equal needs as one array."""
        waiting = [one for one in self._running if one.job_id is None and one.end is None]
        for (needs, minutes), group in groupby(
            sorted(waiting, key=self._array_of), key=self._array_of
        ):
            self._submit_array(list(group), Resources(*needs), minutes)

    def _array_of(self, handle: SlurmHandle) -> tuple[tuple[int, int], int]:
        """Return what the jobs of one array have in common: needs and time limit."""
        needs, minutes = handle.job.needs, self.request.minutes
        limit = min(CHECK_MINUTES, minutes) if isinstance(handle.job, PrepareJob) else minutes
        return (needs.gpus, needs.threads), limit

    def _submit_array(self, handles: list[SlurmHandle], needs: Resources, minutes: int) -> None:
        from peft_methods.runs.executors.slurm.node import NodeJob

        path = self.folder.path
        calls = [NodeJob(one.name, one.job, one.rate, path, minutes) for one in handles]
        try:
            ids = submit(calls, needs, self.request, path, minutes)
        except SlurmError as error:
            for handle in handles:
                handle.end = End("failed", f"sbatch refused it: {error}", setting="slurm")
            return
        for handle, job_id in zip(handles, ids, strict=True):
            handle.job_id = job_id
            self.folder.assign(handle.name, job_id)

    def _news(self) -> list[RunEvent]:
        """Return what the jobs have written into the folder, and refused submissions."""
        names = self.folder.names()
        events: list[RunEvent] = []
        for handle in self._running:
            if handle.job_id is not None:
                events += handle.news(self.folder.of(handle.job_id), names)
            elif handle.end is not None and not handle.is_reported:
                handle.is_reported = True
                events.append(handle.lost(handle.end))
        return events

    def _ends(self) -> list[RunEvent]:
        """Ask Slurm, now and then, for the states of all jobs; return ends without a result."""
        now = time.monotonic()
        watched = [one for one in self._running if one.job_id and not one.has_result]
        if not watched or now - self._asked < STATE_SECONDS:
            return []
        self._asked = now
        states = commands.states([str(one.job_id) for one in watched])
        events = []
        for handle in watched if states is not None else ():
            state = (states or {}).get(str(handle.job_id))
            end = FORGOTTEN if state is None else end_of(state)
            if state is not None and state.state == "PENDING":
                handle.is_queued = True
            if handle.is_over(end, now, FILE_SECONDS) and (event := self._lost(handle, state, end)):
                events.append(event)
        return events

    def _lost(
        self, handle: SlurmHandle, state: JobState | None, end: End | None
    ) -> RunEvent | None:
        """Return the event for a job without a result; None if it is submitted again."""
        assert handle.job_id is not None
        assert end is not None
        files = self.folder.of(handle.job_id)
        files.append_output_to(handle.job.log)
        if end.free:
            self.folder.remove(handle.name, handle.job_id)
            handle.submit_again()
            return None
        if state is None or state.state != "FAILED":
            return handle.lost(end)
        failed = end_of_failed(*commands.exit_of(handle.job_id), self.folder.path)
        return handle.lost(failed or end, "" if failed else last_line(files))

    def has_started(self, handle: SlurmHandle) -> bool:
        """Whether a job has begun on its node."""
        return handle.job_id is not None and self.folder.of(handle.job_id).progress.exists()

    @property
    def notes(self) -> list[str]:
        """Return no remark."""
        return []

    def leave_out(self, handle: SlurmHandle, reason: str) -> str:
        """Return '': Slurm decides which devices its jobs get."""
        return ""

    def is_queued(self, handle: SlurmHandle) -> bool:
        """Whether a job waits in Slurm's queue, or to be submitted."""
        return handle.is_queued

    def stacks(self, handle: SlurmHandle) -> str:
        """Return the stack of every thread of a job's process; empty if it does not answer."""
        if handle.job_id is None or not self.has_started(handle):
            return ""
        return self.folder.of(handle.job_id).ask_for_stacks(STACK_SECONDS)

    def kill(self, handle: SlurmHandle) -> None:
        """Cancel a job, and forget it. The check of a recipe is kept until the session ends."""
        if handle not in self._running or self._detached:
            return
        self._running.remove(handle)
        if handle.job_id is None:
            return
        if isinstance(handle.job, PrepareJob) and handle.has_result:
            self._checks.append(handle)
            return
        if not handle.has_result:
            self._unwanted.append(handle.job_id)
        self.folder.remove(handle.name, handle.job_id)

    def _cancel(self) -> None:
        """Cancel what is not wanted any more. Should that fail, the jobs will notice it and end."""
        unwanted, self._unwanted = self._unwanted, []
        with contextlib.suppress(SlurmError):
            commands.cancel(unwanted)

    def detach(self) -> list[str]:
        """Submit what was started, and leave all jobs to Slurm, also after `close`.

        Returns the ids of those without a result. Raises `OptionError` if sbatch refuses one.
        """
        self.submit()
        if refused := next((one.end for one in self._running if one.end is not None), None):
            raise OptionError(f"{refused.reason}.", setting=SETTING)
        self._detached = True
        names = self.folder.names()
        ids = [str(one.job_id) for one in self._running]
        return [one for one in ids if self.folder.of(one).result.name not in names]

    def close(self) -> None:
        """Cancel every job, unless the session is detached."""
        if self._detached:
            return
        for handle in list(self._running):
            self.kill(handle)
        for handle in self._checks:
            self.folder.remove(handle.name, handle.job_id)
        self._checks.clear()
        self._cancel()
        now = self._assigned()  # a job may have ended since, and its run was reused
        self._earlier = {name: job_id for name, job_id in self._earlier.items() if name in now}
        if all(name.startswith(CHECK) for name in self._earlier):  # no run needs them any more
            for name, job_id in self._earlier.items():
                self.folder.remove(name, job_id)
            self._earlier.clear()
