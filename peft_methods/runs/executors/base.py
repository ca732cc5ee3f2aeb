"""The contract of an executor: it runs jobs in processes on its devices and reports their events.

The scheduler above it decides what runs when, what is retried and how long a run may take.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from peft_methods.runs.executors.jobs import Done, PrepareJob, RunJob
from peft_methods.runs.record import Status

Handle = Hashable
"""A started job, as its executor identifies it."""


@dataclass(frozen=True)
class Resources:
    """A number of GPUs and of CPU threads: what an executor has, or what one run needs."""

    gpus: int
    threads: int

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.gpus + other.gpus, self.threads + other.threads)

    def fits_in(self, other: Resources) -> bool:
        """Whether `other` has at least as much of everything."""
        return self.gpus <= other.gpus and self.threads <= other.threads


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


@dataclass(frozen=True)
class Lost:
    """A job's process ended without a result. A `transient` cause may not occur again."""

    handle: Handle
    status: Status
    reason: str
    transient: bool
    stack: str


RunEvent = Progress | Ended | Lost


class Executor(Protocol):
    """Runs jobs in isolated processes. It owns devices and processes, and no decision."""

    capacity: Resources
    prefetches: bool  # whether a job can do useful work before its turn

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> Handle:
        """Start a job. `rate` is the device's measured matmul rate (FLOP/s), for the record."""

    def prefetch(self, job: RunJob | None) -> None:
        """Start a process for the next job; with a job, it does what needs no GPU until `start`."""

    def prefetched(self) -> str | None:
        """Return the key of the run that is being prefetched."""

    def drop_prefetched(self) -> None:
        """End the process that `prefetch` started, if there is one."""

    def new_worker(self) -> Any:
        """Return a process for other work of the session, such as an experiment tracker."""

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        """Yield events of started jobs, after waiting at most `timeout` seconds for the first."""

    def has_started(self, handle: Handle) -> bool:
        """Whether a job's process runs. Before, it waits for libraries to be imported."""

    def stacks(self, handle: Handle) -> str:
        """Return the stack of every thread of a job's process; empty if it does not answer."""

    def kill(self, handle: Handle) -> None:
        """End a job's process and free its device."""

    def close(self) -> None:
        """End every process."""
