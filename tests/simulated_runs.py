"""A simulated cluster: an executor without processes, whose clock moves from event to event.

It checks at each start that there is room, and that the prerequisites have succeeded. It tells runs
apart by their seeds.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    """A run: its seconds, and how its attempts end; the last repeats."""

    spec: RunSpec
    seconds: float = 1.0
    fates: tuple[Fate, ...] = ("ok",)

    @property
    def gpus(self) -> int:
        """The GPUs it needs."""
        return self.spec.recipe.budget.gpus


@dataclass
class Start:
    """A start of a run: its seed, when, and the GPUs that were in use then."""

    seed: int
    time: float
    gpus_in_use: int


@dataclass(slots=True)
class Job:
    """A started run, as the worker got it: its host, its end, and how often it has reported."""

    run: RunSpec
    host: int
    gpus: int
    began: float
    seconds: float
    fate: Fate
    reported: int = 0


@dataclass
class Cluster:
    """`hosts` machines with `gpus` each, as an executor. `time` is its clock, in seconds.

    `runs` are by seed. Only the next event of each job is in the queue of events.
    """

    hosts: int
    gpus: int
    runs: Mapping[int, SimulatedRun]
    prefetch_limit: int = 0
    reports: int = 1  # of progress, by each run
    time: float = 0.0
    started: list[Start] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.capacity = Resources(self.hosts * self.gpus, self.hosts * self.gpus)
        self.notes: list[str] = []
        self._free = [self.gpus] * self.hosts
        self._by_free = [set[int]() for _ in range(self.gpus + 1)]
        self._by_free[self.gpus] |= set(range(self.hosts))
        self._events: list[tuple[float, int]] = []  # the job's handle
        self._handles = count()
        self._jobs: dict[Any, Job] = {}
        self._attempts: dict[int, int] = {}
        self._prefetched: dict[str, None] = {}
        self._ended_well: set[int] = set()
        self._record = vars(make_record())

    def has_room(self, needs: Resources) -> bool:
        return any(self._by_free[max(1, needs.gpus) :])

    def start(self, job: RunJob | PrepareJob, rate: float | None = None) -> int:
        assert isinstance(job, RunJob)
        seed, handle = job.run.seed, next(self._handles)
        run = self.runs[seed]
        gpus = run.gpus
        assert job.needs.gpus == gpus
        assert all(one.seed in self._ended_well for one in run.spec.prerequisites)
        host = next(iter(next(of for of in self._by_free[gpus:] if of)))
        self._change(host, -gpus)
        if self._prefetched:
            self._prefetched.pop(job.name, None)
        in_use = self.capacity.gpus - sum(self._free) if self.hosts < 10 else 0
        self.started.append(Start(seed, self.time, in_use))
        attempt = self._attempts[seed] = self._attempts.get(seed, 0) + 1
        fate = run.fates[min(attempt, len(run.fates)) - 1]
        self._jobs[handle] = Job(job.run, host, gpus, self.time, run.seconds, fate)
        heapq.heappush(self._events, (self.time, handle))
        return handle

    def poll(self, timeout: float | None) -> Iterator[RunEvent]:
        events = self._events
        due = events[0][0] if events else float("inf")
        end = min(due, self.time + (float("inf") if timeout is None else timeout))
        assert end < float("inf"), "the session would wait for ever"
        self.time = end
        while events and events[0][0] <= end:
            handle = events[0][1]
            job = self._jobs.get(handle)
            if job is None:  # it was killed
                heapq.heappop(events)
            elif job.reported < self.reports:
                news = {"epoch": 1, "epochs": 1, "step": job.reported, "steps": self.reports}
                news["train_seconds"] = job.seconds * job.reported / self.reports
                job.reported += 1
                following = job.began + job.seconds * job.reported / self.reports
                heapq.heapreplace(events, (following, handle))
                yield Progress(handle, news)
            else:
                heapq.heappop(events)
                if job.fate != "hanging":
                    yield self._end_of(handle, job)

    def _end_of(self, handle: int, job: Job) -> RunEvent:
        fate, run = job.fate, job.run
        if fate in ("killed", "crashed"):
            return Lost(handle, "crashed", "its process ended", fate == "killed", "")
        if fate == "engine" and not run.fallback_from:
            return Ended(handle, Done(EngineFailed("it cannot run this")))
        status = "failed" if fate in ("failed", "passing") else "ok"
        if status == "ok":
            self._ended_well.add(run.seed)
        own = {"spec": run, "status": status, "fingerprint": f"{run.seed:016x}", "message": ""}
        record = object.__new__(Record)  # as a worker's answer is unpickled
        vars(record).update(self._record | own)
        return Ended(handle, Done(record, may_pass=fate == "passing"))

    def kill(self, handle: Any) -> None:
        if (job := self._jobs.pop(handle, None)) is not None:
            self._change(job.host, job.gpus)

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


def simulated(
    folder: Path, cluster: Cluster, *, retries: int = 1, timeout: float | None = LIMIT
) -> Scheduler:
    """Return a scheduler of a cluster's runs, with the cluster's clock."""
    store = Store(folder)
    store.prepare()
    requests = RunRequests(store, RunFolder(store), "cuda", Resources(1, 1))
    return Scheduler(
        cluster, requests, timeout=timeout, retries=retries, clock=lambda: cluster.time
    )


def with_gpus(template: RunSpec, gpus: int) -> RunSpec:
    """Return a run over several GPUs with the engine that has a fallback."""
    budget = replace(template.recipe.budget, gpus=gpus, batch_size=8 * gpus)
    recipe = replace(template.recipe, budget=budget)
    return replace(template, recipe=recipe, engine="cuda_graphs")


def spec(
    number: int, template: RunSpec, prerequisites: Sequence[RunSpec] = (), gpus: int = 1
) -> RunSpec:
    """Return a run with this seed."""
    return replace(with_gpus(template, gpus), seed=number, prerequisites=tuple(prerequisites))
