"""Judge the change of one metric in all methods of a session together.

Three families of tests share the false alarms of a metric (Bonferroni), and the metrics share those
of the recipe, 5 % in all, by their weights (Holm, "A simple sequentially rejective multiple test
procedure", 1979, section 4):

- `method_change`: is one method worse than seeds and drift explain? It needs no other method.
- `common_change`: is the mean over the methods worse than chance and drift explain?
- `relative_change`: is one method worse, when the drift is taken off that the others show? Only
  for metrics that drift, such as times: their common part may be several times the rest.

Leading axes of all arrays, if any, are repetitions of a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from peft_methods.analysis.noise import (
    Assumed,
    Drift,
    Figures,
    Group,
    drift,
    estimate,
    explained,
    most_seeds,
    seed_variance,
    variance_of_change,
)
from peft_methods.analysis.samples import Array, Estimate, satterthwaite
from peft_methods.analysis.significance import ALPHA
from peft_methods.analysis.tolerances import ROUNDING, Tolerance

LEAST_COMMON = 3  # methods for a common shift
LEAST_RELATIVE = 4  # methods to compare with the others, if the baseline has one session
LIKELY_DRIFT = 2.0  # standard deviations: a larger change of all others is no drift
Decisions = NDArray[np.bool_]
MEDIAN = np.pi / 2  # variance of a median, relative to that of a mean


@dataclass(frozen=True)
class Family:
    """The number of methods, and one metric's share of the recipe's false alarms.

    `drifting`: the metric drifts between sessions, as times do.
    """

    methods: int
    share: float
    drifting: bool

    @property
    def _parts(self) -> tuple[float, float, float]:
        """Parts of the false alarms: of methods, common shifts, and relative changes."""
        if self.methods < LEAST_COMMON:
            return 1.0, 0.0, 0.0
        return (0.3, 0.4, 0.3) if self.drifting else (0.8, 0.2, 0.0)

    @property
    def of_method(self) -> float:
        """The probability of a false alarm in one test of a method."""
        return ALPHA * self.share * self._parts[0] / self.methods

    @property
    def of_common(self) -> float:
        """The probability of a false alarm in the test of a common shift."""
        return ALPHA * self.share * self._parts[1]

    @property
    def of_relative(self) -> float:
        """The probability of a false alarm in one test of a method against the others."""
        return ALPHA * self.share * self._parts[2] / self.methods


@dataclass(frozen=True)
class JudgedChange:
    """By how much figures are worse (...), and what chance explains of it (...).

    Both are in the tolerance's unit.
    """

    worse: Array
    explained: Array

    def fails(self, tolerance: Tolerance) -> Decisions:
        """Whether the change is more than the tolerance and more than chance explains (...)."""
        exceeded = self.worse > tolerance.amount + ROUNDING
        return np.asarray(exceeded & (self.worse > self.explained), dtype=np.bool_)


@dataclass(frozen=True)
class MetricNoise:
    """The noise of one metric: the baseline of all methods, and what to assume.

    `baseline` has the sessions of each method, each (..., seeds).
    """

    baseline: Mapping[str, tuple[Group, ...]]
    assumed: Assumed
    family: Family

    @cached_property
    def drift(self) -> Drift:
        """The variances between the baseline's sessions."""
        return drift(list(self.baseline.values()), self.assumed)

    def seeds(self, method: str, now: Group) -> Estimate | None:
        """Return the variance between seeds of a method; None if it is unknown."""
        others = [one for name, one in self.baseline.items() if name != method]
        return seed_variance((*self.baseline[method], now), others, self.assumed.seeds)

    def figures(self, method: str, now: Group) -> Figures:
        """Return the figures of a method."""
        return Figures(self.baseline[method], now)

    def method_change(self, method: str, now: Group) -> JudgedChange | None:
        """Return a method's change and what noise explains; None if that is unknown."""
        figures = self.figures(method, now)
        if not np.isfinite(figures.worse).all():  # from nothing to something
            return JudgedChange(figures.worse, np.zeros_like(figures.worse))
        seeds = self.seeds(method, now)
        if seeds is None:
            return None
        variance = variance_of_change(figures, seeds, self.drift)
        return JudgedChange(figures.worse, self._explained(variance, self.family.of_method))

    def _explained(self, variance: Estimate, alpha: float) -> Array:
        """Return by how much chance makes a change (...) worse.

        A time is the baseline's times a factor. The factor's logarithm is nearly normal; the factor
        itself is larger more often, since the baseline may be low by chance.
        """
        chance = explained(variance, alpha)
        with np.errstate(over="ignore"):
            return np.expm1(chance) if self.family.drifting else chance

    def common_change(self, now: Mapping[str, Group]) -> JudgedChange | None:
        """Return the mean change over methods and what chance explains; None for too few."""
        if len(now) < LEAST_COMMON:
            return None
        worse = self._changes(now)
        if not np.isfinite(worse).all():
            return None
        of_methods = estimate(worse.var(-1, ddof=1) / len(now), len(now) - 1)
        common = self.drift.common
        of_drift = Estimate(self.drift.factor * common.variance, common.freedom)
        variance = satterthwaite(of_methods, of_drift)
        return JudgedChange(worse.mean(-1), self._explained(variance, self.family.of_common))

    def _changes(self, now: Mapping[str, Group]) -> Array:
        """Return by how much each method is worse (..., methods)."""
        return np.stack([self.figures(name, one).worse for name, one in now.items()], axis=-1)

    def relative_change(self, method: str, now: Mapping[str, Group]) -> JudgedChange | None:
        """Return a method's change against the median of the others.

        None if the metric does not drift, or too few methods show how far single ones move.
        """
        least = LEAST_COMMON if self.drift.sessions > 1 else LEAST_RELATIVE
        if not self.family.drifting or len(now) < least:
            return None
        others = self._changes({name: one for name, one in now.items() if name != method})
        own = self.figures(method, now[method]).worse
        if not (np.isfinite(others).all() and np.isfinite(own).all()):
            return None
        chance = self._chance(method, others, now[method])
        return JudgedChange(own - self._likely_drift(others), chance)

    def _likely_drift(self, others: Array) -> Array:
        """Return the other methods' median change, as far as drift makes that likely."""
        likely = LIKELY_DRIFT * np.sqrt(self.drift.factor * self.drift.common.variance)
        return np.asarray(np.clip(np.median(others, axis=-1), -likely, likely))

    def _chance(self, method: str, others: Array, now: Group) -> Array:
        """Return by how much chance makes a method worse than the median of the others."""
        count = others.shape[-1]
        spread = 1 + (MEDIAN if count > 2 else 1) / count
        residual = self.drift.residual
        parts = [
            Estimate(self.drift.factor * residual.variance, residual.freedom)
            if self.drift.sessions > 1
            else estimate(others.var(-1, ddof=1), count - 1)
        ]  # with one session in the baseline, the others show how far single methods move
        if (seeds := self.seeds(method, now)) is not None:
            runs = 1 / most_seeds(self.baseline[method]) + 1 / now.shape[-1]
            parts.append(Estimate(seeds.variance * runs, seeds.freedom))
        alpha = self.family.of_relative
        chances = [
            self._explained(Estimate(one.variance * spread, one.freedom), alpha) for one in parts
        ]
        return np.asarray(reduce(np.maximum, chances))
