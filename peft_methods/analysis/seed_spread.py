"""Tests of a change of means against the spread between seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peft_methods.analysis.samples import SEEDS_NEEDED, Estimate
from peft_methods.analysis.significance import ALPHA, p_value


def shift_p(worse: Sequence[float]) -> float:
    """Return the one-sided p of the test that methods got worse together; 1 for fewer than three.

    It is Student's t test of their changes (Gosset 1908). Each method is one observation, so one
    seed per method is enough, and a large change of a single method is not a common shift.
    """
    changes = np.asarray(worse, dtype=np.float64)
    changes = changes[np.isfinite(changes)]
    if len(changes) < 3 or changes.mean() <= 0:
        return 1.0
    variance = Estimate(changes.var(ddof=1) / len(changes), np.asarray(len(changes) - 1.0))
    return float(p_value(changes.mean(), variance)) / 2


def explained_by_seeds(
    before: Sequence[float], now: Sequence[float], others: Sequence[Sequence[float]]
) -> float | None:
    """Return by how much the variance between seeds alone may move the mean of `now` from `before`.

    None if either side has one seed. One-sided, with a false alarm rate of 5 % over all methods:
    this one and the `others`, whose values (one per seed) also contribute to the variance estimate,
    as in `common_spread`.
    """
    from scipy.special import stdtrit

    if min(len(before), len(now)) < SEEDS_NEEDED:
        return None
    own = [before, now]
    groups = [group for group in (*own, *others) if len(group) >= SEEDS_NEEDED]
    variance = max(_pooled(own), _pooled(groups)) * (1 / len(before) + 1 / len(now))
    freedom = sum(len(group) - 1 for group in groups)
    return float(stdtrit(freedom, 1 - ALPHA / (1 + len(others))) * np.sqrt(variance))


def _pooled(groups: Sequence[Sequence[float]]) -> float:
    squares = sum(float(((np.asarray(group) - np.mean(group)) ** 2).sum()) for group in groups)
    return squares / sum(len(group) - 1 for group in groups)
