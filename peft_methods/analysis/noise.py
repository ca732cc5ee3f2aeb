"""How far a metric's mean moves though nothing changed: between seeds and between sessions.

A baseline is sessions x seeds. The variance of a session's mean is the variance of the drift
between sessions plus the variance between seeds divided by their number. Each part is measured
where the figures allow it and otherwise assumed:

- **Seeds**: each method's own variance, moderated by that of all methods (`seed_variance`). With
  one seed everywhere it is assumed (`Assumed.seeds`); None: the metric cannot be judged.
- **Drift** is what a session has in common: clocks, heat, other tenants. With one session in the
  baseline it is assumed. With more, it is the variance of the sessions' means over methods, of
  which the assumed one is a prior worth `PRIOR_FREEDOM` degrees of freedom.
- **Residual**: what a session changes in one method and not in others (two-way layout of sessions
  and methods without repetition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from peft_methods.analysis.samples import SEEDS_NEEDED, Array, Estimate, Sample, satterthwaite
from peft_methods.analysis.seed_variance import common_variance

KNOWN = 1e6  # degrees of freedom of an assumed variance
PRIOR_FREEDOM = 6.0  # of the assumed drift, once sessions measure it
Group = Sequence[float]  # a value per seed


@dataclass(frozen=True)
class Assumed:
    """Standard deviations to assume where nothing measures them, in the unit of the figures.

    `drift` is between sessions. `seeds` is between seeds; None: unknown.
    """

    drift: float
    seeds: float | None


@dataclass(frozen=True)
class Figures:
    """One metric of one method, in the tolerance's unit, where more is worse.

    `sessions` are those of the baseline, `now` the one that is judged.
    """

    sessions: tuple[tuple[float, ...], ...]
    now: tuple[float, ...]

    @property
    def worse(self) -> float:
        """By how much the mean of this session is worse than that of the baseline's sessions."""
        return fmean(self.now) - fmean(map(fmean, self.sessions))


@dataclass(frozen=True)
class Drift:
    """Variances between sessions: common to all methods, and of one method alone."""

    common: Estimate
    residual: Estimate
    sessions: int

    @property
    def factor(self) -> float:
        """The variance of a new session's distance from the baseline, per variance of a session."""
        return 1 + 1 / self.sessions


def estimate(variance: float, freedom: float = KNOWN) -> Estimate:
    """Return an `Estimate` of plain numbers."""
    return Estimate(np.asarray(float(variance)), np.asarray(float(freedom)))


def seed_variance(
    own: Sequence[Group], others: Sequence[Sequence[Group]], assumed: float | None
) -> Estimate | None:
    """Return a method's variance between seeds, from groups of its runs and those of others.

    None if there is one seed everywhere and nothing is assumed.
    """
    samples = [sample for groups in (own, *others) if (sample := _pooled(groups)) is not None]
    if not samples:
        return None if assumed is None else estimate(assumed**2)
    common = common_variance(samples)
    mine = _pooled(own)
    return common.prior if mine is None else common.moderated(mine)


def _pooled(groups: Sequence[Group]) -> Sample | None:
    """Return the variance within several groups as that of one sample; None without any."""
    known = [np.asarray(group) for group in groups if len(group) >= SEEDS_NEEDED]
    freedom = sum(len(group) - 1 for group in known)
    if not freedom:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in known)
    zero = np.asarray(0.0)
    return Sample(zero, np.zeros(1), np.asarray(squares / freedom), zero, freedom + 1)


def drift(methods: Sequence[Figures], assumed: float) -> Drift:
    """Return the variances between the sessions of a baseline.

    `methods` are all of the recipe; those that some session lacks do not count.
    """
    sessions = max((len(one.sessions) for one in methods), default=1)
    block = [one.sessions for one in methods if len(one.sessions) == sessions]
    if sessions < 2:
        return Drift(estimate(assumed**2), estimate(0.0), sessions)
    means = np.asarray([[fmean(session) for session in one] for one in block])
    residual = _residual(means)
    of_sessions = means.mean(0).var(ddof=1)
    common = max(0.0, of_sessions - float(residual.variance) / len(block))
    freedom = sessions - 1
    if not assumed:
        return Drift(estimate(common, freedom), residual, sessions)
    total = PRIOR_FREEDOM + freedom
    moderated = (PRIOR_FREEDOM * assumed**2 + freedom * common) / total
    return Drift(estimate(moderated, total), residual, sessions)


def _residual(means: Array) -> Estimate:
    """Return the mean square of the interaction of methods x sessions; 0 for one method."""
    methods, sessions = means.shape
    if methods < 2:
        return estimate(0.0)
    rest = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    freedom = (methods - 1) * (sessions - 1)
    return estimate(float((rest**2).sum()) / freedom, freedom)


def variance_of_change(own: Figures, seeds: Estimate, between: Drift) -> Estimate:
    """Return the variance of `Figures.worse` of an unchanged method.

    The means of the baseline's sessions contain the seeds, so that several sessions measure both
    together. It is never less than the seeds alone explain; the sessions' seeds count once, since
    sessions repeat them.
    """
    before, now = max(map(len, own.sessions)), len(own.now)
    of_seeds = Estimate(seeds.variance * (1 / before + 1 / now), seeds.freedom)
    factor = 1 + 1 / len(own.sessions)
    common = Estimate(factor * between.common.variance, between.common.freedom)
    if between.sessions < 2:
        return satterthwaite(of_seeds, common)
    residual = Estimate(factor * between.residual.variance, between.residual.freedom)
    more = Estimate(seeds.variance * max(0.0, 1 / now - 1 / before), seeds.freedom)
    return larger(of_seeds, satterthwaite(common, residual, more))


def larger(one: Estimate, other: Estimate) -> Estimate:
    """Return the estimate with the larger variance."""
    return one if one.variance >= other.variance else other


def explained(variance: Estimate, alpha: float) -> float:
    """Return by how much noise makes a mean worse with a probability of `alpha`."""
    from scipy.special import stdtrit

    return float(stdtrit(variance.freedom, 1 - alpha) * np.sqrt(variance.variance))
