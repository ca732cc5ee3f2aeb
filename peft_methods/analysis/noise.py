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
  and methods without repetition). With one session in the baseline it is assumed.

All figures are arrays (..., seeds). Leading axes, if any, are repetitions of a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peft_methods.analysis.samples import SEEDS_NEEDED, Array, Estimate, Sample, satterthwaite
from peft_methods.analysis.seed_variance import common_variance

KNOWN = 1e6  # degrees of freedom of an assumed variance
PRIOR_FREEDOM = 6.0  # of the assumed drift, once sessions measure it
Group = Array  # (..., seeds)


@dataclass(frozen=True)
class Assumed:
    """Standard deviations to assume where nothing measures them, in the unit of the figures.

    `drift` is between sessions and common to all methods, `residual` between sessions in one method
    alone. `seeds` is between seeds; None: unknown.
    """

    drift: float | Array
    seeds: float | Array | None
    residual: float | Array = 0.0


@dataclass(frozen=True)
class Figures:
    """One metric of one method, in the tolerance's unit, where more is worse.

    `sessions` are those of the baseline, `now` the one that is judged: each (..., seeds).
    """

    sessions: tuple[Group, ...]
    now: Group

    @property
    def worse(self) -> Array:
        """By how much the mean of this session is worse than that of the baseline's sessions."""
        return np.asarray(self.now.mean(-1) - mean_of(self.sessions))


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


def mean_of(sessions: Sequence[Group]) -> Array:
    """Return the mean over sessions of each session's mean over seeds (...)."""
    return np.asarray(np.mean([session.mean(-1) for session in sessions], axis=0))


def estimate(variance: float | Array, freedom: float = KNOWN) -> Estimate:
    """Return an `Estimate` with the same degrees of freedom for all variances."""
    found = np.asarray(variance, dtype=np.float64)
    return Estimate(found, np.full_like(found, freedom))


def seed_variance(
    own: Sequence[Group], others: Sequence[Sequence[Group]], assumed: float | Array | None
) -> Estimate | None:
    """Return a method's variance between seeds, from groups of its runs and those of others.

    None if there is one seed everywhere and nothing is assumed.
    """
    samples = [sample for groups in (own, *others) if (sample := _pooled(groups)) is not None]
    if not samples:
        return None if assumed is None else estimate(np.square(assumed))
    common = common_variance(samples)
    mine = _pooled(own)
    return common.unseen() if mine is None else common.moderated(mine)


def _pooled(groups: Sequence[Group]) -> Sample | None:
    """Return the variance within several groups as that of one sample; None without any."""
    known = [group for group in groups if group.shape[-1] >= SEEDS_NEEDED]
    freedom = sum(group.shape[-1] - 1 for group in known)
    if not freedom:
        return None
    squares = np.asarray(
        sum(((group - group.mean(-1, keepdims=True)) ** 2).sum(-1) for group in known)
    )
    zero = np.zeros_like(squares)
    return Sample(zero, zero[..., None], squares / freedom, zero, freedom + 1)


def drift(methods: Sequence[Sequence[Group]], assumed: Assumed) -> Drift:
    """Return the variances between the sessions of a baseline.

    `methods` are the sessions of each method of the recipe; methods that some session lacks do not
    count.
    """
    sessions = max(map(len, methods), default=1)
    if sessions < 2:
        of_one = estimate(np.square(assumed.residual))
        return Drift(estimate(np.square(assumed.drift)), of_one, sessions)
    block = [one for one in methods if len(one) == sessions]
    means = np.stack(
        [np.stack([session.mean(-1) for session in one], axis=-1) for one in block], axis=-2
    )
    residual = _residual(means)
    of_sessions = means.mean(-2).var(-1, ddof=1)
    common = np.maximum(0.0, of_sessions - residual.variance / len(block))
    freedom = sessions - 1
    if not np.any(assumed.drift):
        return Drift(estimate(common, freedom), residual, sessions)
    total = PRIOR_FREEDOM + freedom
    moderated = (PRIOR_FREEDOM * np.square(assumed.drift) + freedom * common) / total
    return Drift(estimate(moderated, total), residual, sessions)


def _residual(means: Array) -> Estimate:
    """Return the mean square of the interaction in means (..., methods, sessions).

    It is 0 for one method.
    """
    methods, sessions = means.shape[-2:]
    if methods < 2:
        return estimate(np.zeros(means.shape[:-2]))
    of_methods, of_sessions = means.mean(-1, keepdims=True), means.mean(-2, keepdims=True)
    rest = means - of_methods - of_sessions + means.mean((-2, -1), keepdims=True)
    freedom = (methods - 1) * (sessions - 1)
    return estimate((rest**2).sum((-2, -1)) / freedom, freedom)


def variance_of_change(own: Figures, seeds: Estimate, between: Drift) -> Estimate:
    """Return the variance of `Figures.worse` of an unchanged method.

    The means of the baseline's sessions contain the seeds, so that several sessions measure both
    together. It is never less than the seeds alone explain; the sessions' seeds count once, since
    sessions repeat them.
    """
    before, now = most_seeds(own.sessions), own.now.shape[-1]
    of_seeds = Estimate(seeds.variance * (1 / before + 1 / now), seeds.freedom)
    factor = 1 + 1 / len(own.sessions)
    common = Estimate(factor * between.common.variance, between.common.freedom)
    residual = Estimate(factor * between.residual.variance, between.residual.freedom)
    if between.sessions < 2:
        return satterthwaite(of_seeds, common, residual)
    more = Estimate(seeds.variance * max(0.0, 1 / now - 1 / before), seeds.freedom)
    return larger(of_seeds, satterthwaite(common, residual, more))


def most_seeds(sessions: Sequence[Group]) -> int:
    """Return the number of seeds of the session with the most."""
    return max(session.shape[-1] for session in sessions)


def larger(one: Estimate, other: Estimate) -> Estimate:
    """Return the estimate with the larger variance, element by element."""
    first = one.variance >= other.variance
    return Estimate(
        np.where(first, one.variance, other.variance), np.where(first, one.freedom, other.freedom)
    )


def explained(variance: Estimate, alpha: float) -> Array:
    """Return by how much noise makes a mean worse with a probability of `alpha`.

    It is Student's quantile times the standard deviation; infinite for an `alpha` of 0.
    """
    from scipy.special import stdtrit

    quantile = stdtrit(variance.freedom, 1 - alpha)
    with np.errstate(invalid="ignore"):  # infinite times 0
        return np.where(variance.variance > 0, quantile * np.sqrt(variance.variance), 0.0)
