"""A simulated cluster: an executor without processes, whose clock moves from event to event.

It checks at each start that there is room, and that the prerequisites have succeeded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from builders import make_record
from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import Done, EngineFailed, PrepareJob, RunJob
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

Fate = Literal["ok", "failed", "passing", "killed", "crashed", "hanging", "engine"]
FATES: tuple[Fate, ...] = ("ok", "failed", "passing", "killed", "crashed", "hanging", "engine")
MAY_PASS = ("passing", "killed")  # fates that are tried again
LIMIT = 10_000.0  # seconds a run may take


@dataclass(frozen=True)
class SimulatedRun:
    """A run: the GPUs it needs, its seconds, and how its attempts end; the last repeats."""

    spec: RunSpec
    gpus: int = 1
    seconds: float = 1.0
    fates: tuple[Fate, ...] = ("ok",)


@dataclass
class Start:
    """A start of a run: its key, when, and the GPUs that were in use then."""

    key: str
    time: float
    gpus_in_use: int


@dataclass
class Cluster:
    """`hosts` machines with `gpus` each, as an executor. `time` is its clock, in seconds."""

    hosts: int
    gpus: int
    runs: Mapping[str, SimulatedRun]
    prefetch_limit: int = 0
    reports: int = 1  # of progress, by each run
    time: float = 0.0
    started: list[Start] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.capacity = Resources(self.hosts * self.gpus, self.hosts * self.gpus)
        self._free = [self.gpus] * self.hosts
        self._by_free = [set[int]() for _ in range(self.gpus + 1)]
        self._by_free[self.gpus] |= set(range(self.hosts))
        self._events: list[tuple[float, int, RunEvent]] = []
        self._handles, self._order = count(), count()
        self._host_of: dict[Any, tuple[int, int]] = {}
        self._attempts: dict[str, int] = {}
        self._prefetched: dict[str, None] = {}
        self._ended_well: set[str] = set()
        self._record = make_record()

    def has_room(self, needs: Resources) -> bool:
        return any(self._by_free[max(1, needs.gpus) :])

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> int:
        assert isinstance(job, RunJob)
        key, handle = key_of(job.run), next(self._handles)
        run = self.runs[key]
        assert job.needs.gpus == run.gpus
        assert set(map(key_of, run.spec.prerequisites)) <= self._ended_well
        host = next(iter(next(of for of in self._by_free[run.gpus :] if of)))
        self._change(host, -run.gpus)
        self._host_of[handle] = host, run.gpus
        self._prefetched.pop(job.name, None)
        in_use = self.capacity.gpus - sum(self._free) if self.hosts < 10 else 0
        self.started.append(Start(key, self.time, in_use))
        attempt = self._attempts[key] = self._attempts.get(key, 0) + 1
        fate = run.fates[min(attempt, len(run.fates)) - 1]
        for report in range(self.reports):
            news = {"epoch": 1, "epochs": 1, "step": report, "steps": self.reports}
            news |= {"train_seconds": run.seconds * report / self.reports}
            self._later(run.seconds * report / self.reports, Progress(handle, news))
        if (event := self._end_of(job.run, handle, fate)) is not None:
            self._later(run.seconds, event)
        return handle

    def _end_of(self, run: RunSpec, handle: int, fate: Fate) -> RunEvent | None:
        if fate == "hanging":
            return None
        if fate in ("killed", "crashed"):
            return Lost(handle, "crashed", "its process ended", fate == "killed", "")
        if fate == "engine" and not run.fallback_from:
            return Ended(handle, Done(EngineFailed("it cannot run this")))
        status = "failed" if fate in ("failed", "passing") else "ok"
        own = {"spec": run, "status": status, "fingerprint": run.key, "message": ""}
        record = object.__new__(Record)  # as a worker's answer is unpickled
        vars(record).update(vars(self._record) | own)
        return Ended(handle, Done(record, may_pass=fate == "passing"))

    def _later(self, seconds: float, event: RunEvent) -> None:
        heapq.heappush(self._events, (self.time + seconds, next(self._order), event))

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        due = self._events[0][0] if self._events else float("inf")
        end = min(due, self.time + (float("inf") if timeout is None else timeout))
        assert end < float("inf"), "the session would wait for ever"
        self.time = end
        while self._events and self._events[0][0] <= self.time:
            event = heapq.heappop(self._events)[2]
            if event.handle in self._host_of:
                result = event.done.result if isinstance(event, Ended) else None
                if isinstance(result, Record) and result.status == "ok":
                    self._ended_well.add(key_of(result.spec))
                yield event

    def kill(self, handle: Any) -> None:
        if handle in self._host_of:
            host, gpus = self._host_of.pop(handle)
            self._change(host, gpus)

    def _change(self, host: int, gpus: int) -> None:
        self._by_free[self._free[host]].discard(host)
        self._free[host] += gpus
        assert 0 <= self._free[host] <= self.gpus
        self._by_free[self._free[host]].add(host)

    def prefetch(self, jobs: Sequence[RunJob]) -> None:
        for job in jobs:
            if len(self._prefetched) < self.prefetch_limit:
                self._prefetched[job.name] = None

    def prefetched(self) -> frozenset[str]:
        return frozenset(self._prefetched)

    def next_prefetched(self) -> frozenset[str]:
        return frozenset(self._prefetched)

    def drop_prefetched(self, keep: Collection[str] = ()) -> None:
        self._prefetched = {name: None for name in self._prefetched if name in keep}

    def new_worker(self) -> Any:
        raise NotImplementedError

    def has_started(self, handle: Any) -> bool:
        return True

    def is_queued(self, handle: Any) -> bool:
        return False

    def leave_out(self, handle: Any, reason: str) -> bool:
        return False

    def stacks(self, handle: Any) -> str:
        return ""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class SimulatedRequests(RunRequests):
    """Requests whose runs need as many GPUs as `gpus_of` says."""

    gpus_of: Callable[[RunSpec], int] = lambda run: 1

    def needs_of(self, run: RunSpec) -> Resources:
        return Resources(self.gpus_of(run), 1)


def simulated(
    folder: Path, cluster: Cluster, *, retries: int = 1, timeout: float | None = LIMIT
) -> Scheduler:
    """Return a scheduler of a cluster's runs, with the cluster's clock."""
    store = Store(folder)
    store.prepare()
    runs, needs = cluster.runs, Resources(1, 1)
    requests = SimulatedRequests(
        store, RunFolder(store), "cuda", needs, gpus_of=lambda run: runs[key_of(run)].gpus
    )
    return Scheduler(
        cluster, requests, timeout=timeout, retries=retries, clock=lambda: cluster.time
    )


def spec(number: int, template: RunSpec, prerequisites: Sequence[RunSpec] = ()) -> RunSpec:
    """Return a run with this seed. Its key is given, since to compute it takes a millisecond."""
    made = replace(template, seed=number, prerequisites=tuple(prerequisites), engine="cuda_graphs")
    vars(made)["key"] = key_of(made)
    return made


def key_of(run: RunSpec) -> str:
    """Return the key of a simulated run, also of one whose engine was replaced."""
    return f"{run.seed:016x}"
