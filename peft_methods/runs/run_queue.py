"""The runs that wait for their turn: every change costs the same, however many there are."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count, islice, repeat

from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import job_name
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec


class ReadyRuns:
    """Runs with equal needs that can start, in the order of their numbers."""

    def __init__(self) -> None:
        self._runs: dict[int, RunSpec] = {}
        self._by_name: dict[str, int] = {}
        self._heap: list[int] = []  # their numbers, and some of runs that were taken

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, number: int) -> RunSpec:
        return self._runs[number]

    @property
    def names(self) -> Collection[str]:
        """The names of the runs' jobs."""
        return self._by_name

    def add(self, number: int, run: RunSpec) -> None:
        """Add a run."""
        heapq.heappush(self._heap, number)
        self._runs[number], self._by_name[job_name(run)] = run, number

    def take(self, first: Collection[str], last: Collection[str]) -> RunSpec:
        """Remove and return the next run: one of the jobs named in `first`, if there is any.

        The jobs named in `last` come after all others.
        """
        named = [self._by_name[name] for name in first if name in self._by_name]
        number = min(named) if named else next(self.numbers(without=last), self._heap[0])
        run = self._runs.pop(number)
        del self._by_name[job_name(run)]
        while self._heap and self._heap[0] not in self._runs:
            heapq.heappop(self._heap)
        return run

    def numbers(self, without: Collection[str] = ()) -> Iterator[int]:
        """Yield the numbers in ascending order, but for the jobs with these names.

        The first ones cost the same however many follow: a heap's smallest numbers are below
        numbers that were yielded already.
        """
        heap = self._heap
        following = [(number, 0) for number in heap[:1]]
        while following:
            number, place = heapq.heappop(following)
            run = self._runs.get(number)
            if run is not None and not (without and job_name(run) in without):
                yield number
            for below in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(following, (heap[below], below))


class RunQueue:
    """Runs in the order in which they were added; each becomes ready after its prerequisites.

    Of the ready runs, those with the largest needs start first. Where one of them finds no room,
    up to `patience` smaller runs may start before it. After that its room is kept free, since
    otherwise a run that needs several GPUs might wait until all others have ended.
    """

    def __init__(self, needs_of: Callable[[RunSpec], Resources], patience: int) -> None:
        self._needs_of, self._patience = needs_of, max(1, patience)
        self._overtaken, self._numbers = 0, count(1)
        self.clear()

    def clear(self) -> None:
        """Remove all runs."""
        self._keys: set[str] = set()
        self._ready: dict[Resources, ReadyRuns] = {}  # the largest needs first
        self._missing: dict[str, int] = {}  # prerequisites that have not ended, by waiting run
        self._dependents: dict[str, list[tuple[int, RunSpec]]] = {}
        self._hopeless: deque[tuple[RunSpec, Record]] = deque()

    def __len__(self) -> int:
        return len(self._keys)

    def has_job(self, name: str) -> bool:
        """Whether a ready run's job has this name."""
        return any(name in ready.names for ready in self._ready.values())

    def job_names(self) -> frozenset[str]:
        """Return the names of the jobs of all runs that are ready."""
        return frozenset(name for ready in self._ready.values() for name in ready.names)

    def add(self, run: RunSpec, ended: Mapping[str, Record], *, first: bool = False) -> None:
        """Add a run after all others, or before them if `first`.

        `ended` are the records of ended runs by key.
        """
        self._keys.add(run.key)
        keys = dict.fromkeys([one.key for one in run.prerequisites])
        known = [ended[key] for key in keys if key in ended]
        failed = next((record for record in known if record.status != "ok"), None)
        if failed is not None:
            self._hopeless.append((run, failed))
            return
        number = -next(self._numbers) if first else next(self._numbers)
        missing = [key for key in keys if key not in ended]
        for key in missing:
            self._dependents.setdefault(key, []).append((number, run))
        if missing:
            self._missing[run.key] = len(missing)
        else:
            self._make_ready(number, run)

    def end(self, key: str, record: Record) -> None:
        """Release the runs that waited for this one, or give them up if it failed."""
        for number, run in self._dependents.pop(key, ()):
            if run.key not in self._missing:
                continue  # another of its prerequisites failed
            self._missing[run.key] -= 1
            if record.status != "ok":
                self._hopeless.append((run, record))
            elif not self._missing[run.key]:
                self._make_ready(number, run)
            else:
                continue
            del self._missing[run.key]

    def hopeless(self, obstacle: Callable[[Resources], str]) -> Iterator[tuple[RunSpec, str]]:
        """Remove and yield the runs that can never start, with the reason.

        A prerequisite failed, or there is an `obstacle` to what the run needs.
        """
        for needs, reason in [(one, obstacle(one)) for one in self._ready]:
            if reason:
                ready = self._ready.pop(needs)
                for run in map(ready.__getitem__, ready.numbers()):
                    self._keys.discard(run.key)
                    yield run, reason
        while self._hopeless:
            run, failed = self._hopeless.popleft()
            self._keys.discard(run.key)
            yield run, f"its prerequisite run {failed.recipe_name} failed: {failed.message}"

    def next_needs(self, has_room: Callable[[Resources], bool]) -> Resources | None:
        """Return what the run to start now needs; None if there is no room for any."""
        for place, needs in enumerate(self._ready):
            if has_room(needs):
                self._overtaken = self._overtaken + 1 if place else 0
                return needs
            if self._overtaken >= self._patience:
                return None
        return None

    def take(self, needs: Resources, first: Collection[str], last: Collection[str]) -> RunSpec:
        """Remove and return the next run with these needs.

        `first` and `last` name the jobs that come before and after the others.
        """
        run = self._ready[needs].take(first, last)
        if not self._ready[needs]:
            del self._ready[needs]
        self._keys.discard(run.key)
        return run

    def following(self, most: int, without: Collection[str]) -> list[RunSpec]:
        """Return the next ready runs in order, except those whose jobs are named."""
        ready = self._ready.values()
        numbered = heapq.merge(*(zip(one.numbers(without), repeat(one)) for one in ready))
        return [one[number] for number, one in islice(numbered, most)]

    def _make_ready(self, number: int, run: RunSpec) -> None:
        needs = self._needs_of(run)
        if needs not in self._ready:
            self._ready[needs] = ReadyRuns()
            self._ready = dict(sorted(self._ready.items(), key=_size, reverse=True))
        self._ready[needs].add(number, run)


def _size(item: tuple[Resources, ReadyRuns]) -> tuple[int, int]:
    return item[0].gpus, item[0].threads
