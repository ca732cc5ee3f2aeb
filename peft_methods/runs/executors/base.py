"""The contract of an executor: it runs jobs in processes on its devices and reports their events.

The scheduler above it decides what runs when, what is retried and how long a run may take.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from peft_methods.runs.executors.devices import DeviceSet, Resources
from peft_methods.runs.executors.jobs import Done, PrepareJob, RunJob
from peft_methods.runs.record import Status

Handle = Hashable
"""A started job, as its executor identifies it."""


@dataclass(frozen=True)
class Progress:
    """A running job reported how far it is."""

    handle: Handle
    news: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A job ended and sent its result."""

    handle: Handle
    done: Done

    @property
    def gpu_failure(self) -> str:
        """How the job's GPU failed; empty if it did not."""
        return self.done.gpu_failure

    def with_failure(self, reason: str) -> Ended:
        """Return the same with the failure of the job's GPU."""
        return replace(self, done=replace(self.done, gpu_failure=reason))


@dataclass(frozen=True)
class Lost:
    """A job's process ended without a result. A `transient` cause may not occur again.

    `gpu_failure` says how the job's GPU failed, if that is the cause.
    """

    handle: Handle
    status: Status
    reason: str
    transient: bool
    stack: str
    gpu_failure: str = ""

    def with_failure(self, reason: str) -> Lost:
        """Return the same with the failure of the job's GPU."""
        return replace(self, gpu_failure=reason)


RunEvent = Progress | Ended | Lost


class Request(Protocol):
    """What a session asks of a cluster; its executor gets it as the third argument."""

    @property
    def device(self) -> str:
        """'cuda' or 'cpu', as a run's spec names its device."""

    @property
    def device_name(self) -> str:
        """The GPU's name, or 'cpu'. Baselines are stored under this name."""

    @property
    def largest_node(self) -> int | None:
        """The largest number of GPUs that a node has, or of CPU cores where runs train on CPUs."""

    def slots(self) -> tuple[DeviceSet, ...]:
        """Return one device set for each run at a time. Raises `OptionError` if there is none."""


class Executor(Protocol):
    """Runs jobs in isolated processes. It owns devices and processes, and no decision.

    Runs that may share a process can follow one another in it. An executor may ignore that.
    """

    notes: list[str]  # what its user should know of how runs were executed

    @property
    def capacity(self) -> Resources:
        """The resources of all its devices that work."""

    @property
    def prefetch_limit(self) -> int:
        """The number of jobs that can do useful work before their turn."""

    def has_room(self, needs: Resources) -> bool:
        """Whether a job with these needs can start now."""

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> Handle:
        """Start a job. `rate` is the device's measured matmul rate (FLOP/s), for the record."""

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        """Start processes for the next jobs; each does what needs no GPU until `start`.

        A job that is prefetched already, or beyond `prefetch_limit`, is ignored. Without a job, a
        process that imports its libraries may be kept ready.
        """

    def prefetched(self) -> frozenset[str]:
        """Return the names of the jobs that are being prefetched."""

    def next_prefetched(self) -> frozenset[str]:
        """Return the names of those of them whose device is free: they should start next."""

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        """End the processes that `prefetch` started, except those of the jobs named in `keep`."""

    def new_worker(self) -> Any:
        """Return a process for other work of the session, such as an experiment tracker."""

    def leave_out(self, handle: Handle, reason: str) -> str:
        """Leave the devices of a job out, which failed for this reason, and return their names.

        Empty if they stay in use.
        """

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Yield events of started jobs, after waiting at most `timeout` seconds for the first."""

    def has_started(self, handle: Handle) -> bool:
        """Whether a job's process runs. Before, it waits for libraries to be imported."""

    def is_queued(self, handle: Handle) -> bool:
        """Whether a job waits for a machine. That time counts to no limit."""

    def stacks(self, handle: Handle) -> str:
        """Return the stack of every thread of a job's process; empty if it does not answer."""

    def kill(self, handle: Handle) -> None:
        """Free a job's device, and end its process unless it has ended its job and is clean."""

    def close(self) -> None:
        """End every process."""


@runtime_checkable
class Detachable(Executor, Protocol):
    """An executor whose jobs can outlive the session.

    The next session that starts the same work continues with its job.
    """

    def detach(self) -> list[str]:
        """Leave all jobs running, also after `close`. Return the ids of those without a result."""
