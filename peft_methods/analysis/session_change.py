"""Judge the change of one metric in all methods of a session together.

Three families of tests share the false alarms of a recipe, 5 % in all (Bonferroni):

- `method_change`: is one method worse than seeds and drift explain? It needs no other method.
- `common_change`: is the mean over the methods worse than chance and drift explain?
- `relative_change`: is one method worse, when the drift is taken off that the others show? Only
  for metrics that drift, such as times: their common part may be several times the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

import numpy as np

from peft_methods.analysis.noise import (
    Assumed,
    Drift,
    Figures,
    drift,
    estimate,
    explained,
    seed_variance,
    variance_of_change,
)
from peft_methods.analysis.samples import Estimate, satterthwaite
from peft_methods.analysis.significance import ALPHA

LEAST_COMMON = 3  # methods for a common shift
LEAST_RELATIVE = 4  # methods to compare with the others, if the baseline has one session
LIKELY_DRIFT = 2.0  # standard deviations: a larger change of all others is no drift
MEDIAN = np.pi / 2  # variance of a median, relative to that of a mean


@dataclass(frozen=True)
class Family:
    """The numbers of methods and of metrics that are judged, and of those metrics that drift."""

    methods: int
    metrics: int
    drifting: int

    @property
    def _shares(self) -> tuple[float, float, float]:
        """Shares of the false alarms: of methods, common shifts, and relative changes."""
        if self.methods < LEAST_COMMON:
            return 1.0, 0.0, 0.0
        return (0.4, 0.2, 0.4) if self.drifting else (0.8, 0.2, 0.0)

    @property
    def of_method(self) -> float:
        """The probability of a false alarm in one test of a method."""
        return ALPHA * self._shares[0] / (self.methods * self.metrics)

    @property
    def of_common(self) -> float:
        """The probability of a false alarm in the test of a common shift of one metric."""
        return ALPHA * self._shares[1] / self.metrics

    @property
    def of_relative(self) -> float:
        """The probability of a false alarm in one test of a method against the others."""
        return ALPHA * self._shares[2] / (self.methods * max(1, self.drifting))


@dataclass(frozen=True)
class RelativeChange:
    """How much worse a method is than the others' median, and what chance explains of it."""

    worse: float
    explained: float


@dataclass(frozen=True)
class MetricNoise:
    """The noise of one metric: the baseline of all methods, and what to assume."""

    baseline: Mapping[str, tuple[tuple[float, ...], ...]]  # sessions by method
    assumed: Assumed
    family: Family

    @cached_property
    def drift(self) -> Drift:
        """The variances between the baseline's sessions."""
        return drift([Figures(one, ()) for one in self.baseline.values()], self.assumed.drift)

    def seeds(self, method: str, now: Sequence[float]) -> Estimate | None:
        """Return the variance between seeds of a method; None if it is unknown."""
        others = [one for name, one in self.baseline.items() if name != method]
        return seed_variance((*self.baseline[method], now), others, self.assumed.seeds)

    def figures(self, method: str, now: Sequence[float]) -> Figures:
        """Return the figures of a method."""
        return Figures(self.baseline[method], tuple(now))

    def method_change(self, method: str, now: Sequence[float]) -> float | None:
        """Return by how much noise makes an unchanged method worse; None if that is unknown."""
        seeds = self.seeds(method, now)
        if seeds is None:
            return None
        variance = variance_of_change(self.figures(method, now), seeds, self.drift)
        return explained(variance, self.family.of_method)

    def common_change(self, now: Mapping[str, Sequence[float]]) -> RelativeChange | None:
        """Return the mean change over methods and what chance explains; None for too few."""
        worse = [self.figures(name, values).worse for name, values in now.items()]
        if len(worse) < LEAST_COMMON or not np.isfinite(worse).all():
            return None
        of_methods = estimate(float(np.var(worse, ddof=1)) / len(worse), len(worse) - 1)
        common = self.drift.common
        of_drift = Estimate(self.drift.factor * common.variance, common.freedom)
        variance = satterthwaite(of_methods, of_drift)
        return RelativeChange(fmean(worse), explained(variance, self.family.of_common))

    def relative_change(
        self, method: str, now: Mapping[str, Sequence[float]]
    ) -> RelativeChange | None:
        """Return a method's change against the median of the others.

        None if the metric does not drift, or too few methods show how far single ones move.
        """
        measured = self.drift.sessions > 1
        least = LEAST_COMMON if measured else LEAST_RELATIVE
        if not self.assumed.drift or len(now) < least:
            return None
        worse = {name: self.figures(name, values).worse for name, values in now.items()}
        others = [value for name, value in worse.items() if name != method]
        if not np.isfinite(list(worse.values())).all():
            return None
        return RelativeChange(
            worse[method] - self._likely_drift(others), self._chance(method, others, now[method])
        )

    def _likely_drift(self, others: Sequence[float]) -> float:
        """Return the other methods' median change, as far as drift makes that likely."""
        likely = LIKELY_DRIFT * float(np.sqrt(self.drift.factor * self.drift.common.variance))
        return min(max(median(others), -likely), likely)

    def _chance(self, method: str, others: Sequence[float], now: Sequence[float]) -> float:
        """Return by how much chance makes a method worse than the median of the others."""
        spread = 1 + (MEDIAN if len(others) > 2 else 1) / len(others)
        residual = self.drift.residual
        parts = [
            Estimate(self.drift.factor * residual.variance, residual.freedom)
            if self.drift.sessions > 1
            else estimate(float(np.var(others, ddof=1)), len(others) - 1)
        ]  # with one session in the baseline, the others show how far single methods move
        if (seeds := self.seeds(method, now)) is not None:
            count = 1 / max(map(len, self.baseline[method])) + 1 / len(now)
            parts.append(Estimate(seeds.variance * count, seeds.freedom))
        return max(
            explained(Estimate(part.variance * spread, part.freedom), self.family.of_relative)
            for part in parts
        )
