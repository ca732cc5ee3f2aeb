"""Estimate of the time left in an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peft_methods.runs.cost_model import expected_seconds
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.spec import RunSpec

# Once this share of a run's steps is done, their speed predicts the run's total time.
MIN_SHARE_FOR_PROJECTION = 0.1
# An unfinished run has at least this share of its total time left, even when it is overdue.
MIN_SHARE_LEFT = 0.1


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
        self._took: dict[str, float] = {}
        self._kind: dict[str, tuple[str, str]] = {}
        self.reused: set[str] = set()
        self._started: dict[str, float] = {}
        self._trained: dict[
            str, tuple[float, float]
        ] = {}  # share of steps done, seconds spent on them

    def plan(self, runs: Iterable[RunSpec], preparation: PreparedRecipe) -> None:
        """Add runs of one recipe and their prerequisites, except those that are reused."""
        for run in runs:
            for one in (one for one in (*run.prerequisites, run) if one.key not in self.reused):
                self.expected[one.key] = expected_seconds(one, preparation)
                self._kind[one.key] = one.recipe.name, one.method.name

    def reuse(self, key: str) -> None:
        """Record that this run is reused from an earlier session."""
        self.reused.add(key)

    def forget(self, key: str) -> None:
        """Reset a run that stopped and will be retried."""
        self._started.pop(key, None)
        self._trained.pop(key, None)

    def start(self, key: str) -> None:
        """Record that a run starts, for the first time or again."""
        self._started[key] = self._clock()
        self._trained.pop(key, None)

    def update(self, key: str, news: Mapping[str, Any]) -> None:
        """Update a run's projection from its progress."""
        if news.get("steps"):
            self._trained[key] = news["step"] / news["steps"], news["train_seconds"]

    def end(self, key: str, *, ok: bool) -> None:
        """Record that a run ended. The duration of a failed run is not used for others."""
        seconds = self._elapsed(key)
        self._started.pop(key, None)
        self.ended.add(key)
        if ok:
            self._took[key] = seconds

    def seconds(self) -> float:
        """Estimate the seconds left for all unfinished runs on all workers.

        At least the time left for the longest run.
        """
        known = self._took | {
            key: total for key in self._started if (total := self._projected(key)) is not None
        }
        totals = {
            key: known.get(key, self.expected[key] * self._pace(key, known))
            for key in self.expected
            if key not in self.ended
        }
        left = {
            key: max(total * MIN_SHARE_LEFT, total - self._elapsed(key))
            for key, total in totals.items()
        }
        return max([sum(left.values()) / self.workers, *left.values()])

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

    def _pace(self, key: str, known: Mapping[str, float]) -> float:
        """Ratio of real to expected seconds over runs similar to this one."""
        similar = [one for one in known if self._kind.get(one) == self._kind[key]] or [
            one for one in known if one in self.expected
        ]
        expected = sum(self.expected[one] for one in similar)
        return sum(known[one] for one in similar) / expected if expected else 1.0
