"""Estimate of the time left in an experiment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peft_methods.runs.cost_model import expected_seconds
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.spec import RunSpec

# Once this share of a run's steps is done, their speed predicts the run's total time.
MIN_SHARE_FOR_PROJECTION = 0.1
# An unfinished run has at least this share of its total time left, even when it is overdue.
MIN_SHARE_LEFT = 0.1

Kind = tuple[str, str]  # recipe and method


@dataclass(frozen=True)
class Pace:
    """How long several runs took, or will probably take, and how long was expected, in seconds."""

    real: float = 0.0
    expected: float = 0.0

    def __add__(self, other: Pace) -> Pace:
        return Pace(self.real + other.real, self.expected + other.expected)

    @property
    def factor(self) -> float:
        """The ratio of real to expected seconds; 1 if nothing is known."""
        return self.real / self.expected if self.expected else 1.0


class TimeLeft:
    """Estimate of the time left, corrected by how long runs really take.

    The steps done so far predict the total time of an active run. A waiting run is expected to miss
    its estimate by the same factor as the finished and active runs of its recipe and method. If
    there are none, the factor over all runs is used.
    """

    def __init__(self, workers: int, clock: Callable[[], float]) -> None:
        self.workers, self._clock = workers, clock
        self.expected: dict[str, float] = {}
        self.ended: set[str] = set()
        self.reused: set[str] = set()
        self._kind: dict[str, Kind] = {}
        # Of each kind: how many waiting runs have which expected seconds, and what finished took.
        self._waiting: dict[Kind, Counter[float]] = defaultdict(Counter)
        self._took: dict[Kind, Pace] = defaultdict(Pace)
        self._started: dict[str, float] = {}
        self._trained: dict[
            str, tuple[float, float]
        ] = {}  # share of steps done, seconds spent on them

    def plan(self, runs: Iterable[RunSpec], preparation: PreparedRecipe) -> None:
        """Add runs of one recipe and their prerequisites, except those that are reused."""
        for run in runs:
            for one in (*run.prerequisites, run):
                if one.key not in self.reused and one.key not in self.expected:
                    self.expected[one.key] = expected_seconds(one, preparation)
                    self._kind[one.key] = one.recipe.name, one.method.name
                    self._wait(one.key, 1)

    def _wait(self, key: str, change: int) -> None:
        """Count one more or one fewer run that waits for its start."""
        if key in self.expected and key not in self._started and key not in self.ended:
            self._waiting[self._kind[key]][self.expected[key]] += change

    def is_left(self, key: str) -> bool:
        """Whether this run is planned and has not ended."""
        return key in self.expected and key not in self.ended

    @property
    def left(self) -> int:
        """The number of planned runs that have not ended."""
        return len(self.expected.keys() - self.ended)

    def reuse(self, key: str) -> None:
        """Record that this run is reused from an earlier session."""
        self.reused.add(key)

    def forget(self, key: str) -> None:
        """Reset a run that stopped and will be retried."""
        self._trained.pop(key, None)
        if self._started.pop(key, None) is not None:
            self._wait(key, 1)

    def start(self, key: str) -> None:
        """Record that a run starts, for the first time or again."""
        self._wait(key, -1)
        self._started[key] = self._clock()
        self._trained.pop(key, None)

    def update(self, key: str, news: Mapping[str, Any]) -> None:
        """Update a run's projection from its progress."""
        if news.get("steps"):
            self._trained[key] = news["step"] / news["steps"], news["train_seconds"]

    def end(self, key: str, *, ok: bool) -> None:
        """Record that a run ended. The duration of a failed run is not used for others."""
        seconds = self._elapsed(key)
        self._wait(key, -1)
        self._started.pop(key, None)
        self._trained.pop(key, None)
        self.ended.add(key)
        if ok and key in self.expected:
            self._took[self._kind[key]] += Pace(seconds, self.expected[key])

    def seconds(self) -> float:
        """Estimate the seconds left for all unfinished runs on all workers.

        At least the time left for the longest run. It costs as much as there are active runs, and
        recipes and methods, however many runs wait.
        """
        projected = {key: self._projected(key) for key in self._started if key in self.expected}
        known = defaultdict(Pace, self._took)
        for key, total in projected.items():
            if total is not None:
                known[self._kind[key]] += Pace(total, self.expected[key])
        overall = sum(known.values(), Pace())
        paces = {kind: pace.factor for kind, pace in known.items()}
        total_left = longest = 0.0
        for key, total in projected.items():
            pace = paces.get(self._kind[key], overall.factor)
            whole = self.expected[key] * pace if total is None else total
            left = max(whole * MIN_SHARE_LEFT, whole - self._elapsed(key))
            total_left, longest = total_left + left, max(longest, left)
        for kind, waiting in self._waiting.items():
            pace = paces.get(kind, overall.factor)
            for expected, count in waiting.items():
                if count:
                    total_left += count * expected * pace
                    longest = max(longest, expected * pace)
        return max(total_left / self.workers, longest)

    def _elapsed(self, key: str) -> float:
        return self._clock() - self._started[key] if key in self._started else 0.0

    def _projected(self, key: str) -> float | None:
        """Project the total seconds of an active run; None while too few steps are done."""
        share, seconds = self._trained.get(key, (0.0, 0.0))
        return (
            None
            if share < MIN_SHARE_FOR_PROJECTION
            else self._elapsed(key) + seconds * (1 / share - 1)
        )
