"""The part that runs on a node: one job in a process of its own, as on one machine.

submitit starts it, tells it when its time is over, and puts it into Slurm's queue again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission, UncompletedJobError

from peft_methods.profiling.gpus import gpus_here
from peft_methods.runs.executors.base import Ended, Lost, Progress
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import PrepareJob, RunJob
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.slurm.files import JobFiles, JobFolder
from peft_methods.runs.store import Store
from peft_methods.utils.files import write_bytes
from peft_methods.utils.units import format_duration

LOOK_SECONDS = 1.0
# Slurm may send a job's signal a minute early.
EARLY_SECONDS = 60
WARNING_SECONDS = 30  # between Slurm's signal and the end of a job
REQUEUED = "crashed: Slurm requeued its job, which was preempted, out of time, or on a failed node"


class NodeJob:
    """A job with what it needs on a node. submitit calls it there and stores what it returns."""

    def __init__(
        self, name: str, job: RunJob | PrepareJob, rate: float | None, folder: Path, minutes: int
    ) -> None:
        self.name, self.job, self.rate, self.minutes = name, job, rate, minutes
        self.folder = JobFolder(folder)
        self._started = 0.0
        self._epochs: frozenset[str] = frozenset()

    def __call__(self) -> Ended | Lost:
        """Do the job and return how it ended, with its name as the handle."""
        environment = JobEnvironment()
        self._started, self._epochs = time.time(), self._finished_epochs()
        files = self.folder.of(environment.job_id)
        files.report({})  # the session knows by it that the job has started
        with tempfile.TemporaryDirectory(prefix="peft-") as scratch:
            executor = self._executor(Path(scratch))
            try:
                return self._ending(executor, files)
            except UncompletedJobError:  # from submitit's handler, when `checkpoint` returned None
                return Lost(self.name, "timeout", self._out_of_time(), False, "")
            finally:
                executor.close()

    def checkpoint(self) -> DelayedSubmission | None:
        """Return the job to put into the queue again; None if that would lead nowhere.

        submitit calls this shortly before the job's time is over, and when it is preempted.
        """
        seconds = time.time() - self._started
        out_of_time = seconds > self.minutes * 60 - WARNING_SECONDS - EARLY_SECONDS
        if out_of_time and self._finished_epochs() <= self._epochs:
            return None
        again = NodeJob(self.name, self.job, self.rate, self.folder.path, self.minutes)
        return DelayedSubmission(again)

    def _executor(self, scratch: Path) -> LocalExecutor:
        visible = () if self._device() == "cpu" else gpus_here()
        gpus = tuple(gpu.uuid for gpu in visible)[: self.job.needs.gpus]
        threads = max(1, self.job.needs.threads // max(1, len(gpus)))
        slots = tuple(DeviceSet((gpu,), threads) for gpu in gpus) or (DeviceSet((), threads),)
        return LocalExecutor(slots, scratch)

    def _device(self) -> str:
        return self.job.run.device if isinstance(self.job, RunJob) else self.job.device

    def _ending(self, executor: LocalExecutor, files: JobFiles) -> Ended | Lost:
        with _signals_ignored():  # by the processes that are started here
            worker = executor.start(_resumed(self.job), self.rate)
        while True:
            for event in executor.poll(LOOK_SECONDS):
                if not isinstance(event, Progress):
                    return replace(event, handle=self.name)
                files.report(event.news)
            if files.wanted_stacks.exists():
                _answer(files, executor.stacks(worker))
            if not self.folder.is_assigned(self.name, files.job):
                raise SystemExit("the session does not want this job any more")

    def _finished_epochs(self) -> frozenset[str]:
        """Return the names of the run's checkpoints. There is one, of the last finished epoch."""
        if isinstance(self.job, PrepareJob):
            return frozenset()
        store = Store(Path(self.job.directory) / self.job.store)
        return frozenset(file.name for file in store.checkpoints_of(self.job.run.key).glob("*.*"))

    def _out_of_time(self) -> str:
        what = "its next epoch" if isinstance(self.job, RunJob) else "it"
        return (
            f"Slurm's time limit of {format_duration(self.minutes * 60)} (setting slurm time) was "
            f"over before {what} ended; give more"
        )


def _resumed(job: RunJob | PrepareJob) -> RunJob | PrepareJob:
    """Return the job. In a job that Slurm requeued, its record says so."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if not restarts or isinstance(job, PrepareJob):
        return job
    return replace(job, attempts=(*job.attempts, *(REQUEUED,) * restarts))


def _answer(files: JobFiles, stacks: str) -> None:
    """Write the stacks with the number of the request."""
    with contextlib.suppress(OSError):
        number = files.wanted_stacks.read_text(encoding="utf-8")
        files.wanted_stacks.unlink(missing_ok=True)
        write_bytes(f"{number}\n{stacks}".encode(), files.stacks)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Context manager: new processes ignore the signals that Slurm sends to all of a job's.

    They end with this process. Until then a run may finish an epoch.
    """
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
