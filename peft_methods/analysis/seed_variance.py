"""The variance between seeds: each method's own, all methods' pooled, and one between the two.

An estimate from two or three seeds per method is nearly useless: for two degrees of freedom and 28
comparisons, Student's t quantile is 24. If all methods spread alike, the variance pooled over them
(as in an analysis of variance) has many degrees of freedom. If they do not, it is wrong for each.
So each method's variance is moderated: Smyth, "Linear models and empirical Bayes methods for
assessing differential expression in microarray experiments" (2004). The variances of the methods
are taken as drawn from a scaled inverse chi-squared distribution, whose degrees of freedom say how
alike they are: infinite if they are equal. A moderated variance is the mean of the method's own and
the distribution's, weighted by their degrees of freedom. It never has more of them than all methods
have together: the distribution is estimated from the same seeds.

Few methods tell little about that distribution. Its degrees of freedom are therefore not the most
likely ones, but the fewest that are nearly as likely (`LIKELY`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peft_methods.analysis.samples import SEEDS_NEEDED, Array, Estimate, Sample

LIKELY = 0.25  # log likelihood below that of the most likely degrees of freedom
FREEDOMS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 100.0, 1e5)  # tried ones
SCALES = np.linspace(-4, 4, 41)  # tried logarithms of its scale, relative to the pooled variance
SMALLEST = 1e-12  # of a variance relative to the pooled one, where its logarithm is needed


@dataclass(frozen=True)
class SeedVariance:
    """Variances between seeds (...) of several methods together.

    `pooled` is their mean, weighted by degrees of freedom, which `freedom` is the sum of. `prior`
    is the distribution of the methods' variances: its scale and degrees of freedom. `level` is the
    mean of the squared p (1 - p) of the methods' metrics p, weighted in the same way.
    """

    pooled: Array
    freedom: int
    prior: Estimate
    level: Array

    def moderated(self, sample: Sample) -> Estimate:
        """Return a method's variance between seeds, moderated by that of all methods."""
        own, prior = sample.freedom, self.prior
        variance = prior.freedom * prior.variance + own * sample.seed_variance
        total = prior.freedom + own
        return Estimate(variance / total, np.minimum(total, self.freedom))

    def unseen(self) -> Estimate:
        """Return the variance between seeds of a further method."""
        return Estimate(self.prior.variance, np.minimum(self.prior.freedom, self.freedom))


def common_variance(samples: Sequence[Sample]) -> SeedVariance:
    """Estimate the variance between seeds of all methods with two seeds or more.

    At least one method must have them.
    """
    known = [sample for sample in samples if sample.seeds >= SEEDS_NEEDED]
    freedoms = np.asarray([sample.freedom for sample in known], dtype=np.float64)
    variances = np.stack([sample.seed_variance for sample in known], axis=-1)
    pooled = _weighted(variances, freedoms)
    levels = np.stack([squared_level(sample) for sample in known], axis=-1)
    return SeedVariance(
        pooled,
        int(freedoms.sum()),
        _prior(variances, freedoms, pooled),
        _weighted(levels, freedoms),
    )


def squared_level(sample: Sample) -> Array:
    """Return the square of p (1 - p), with p moved inwards by one example right and one wrong.

    The variance of a proportion is about this times the variance of its logit (delta method).
    Metrics that are no shares are taken to vary alike at every level: 1.
    """
    if sample.scale is not None:
        return np.ones_like(sample.mean)
    near = (sample.mean * sample.examples + 1) / (sample.examples + 2)
    return np.asarray((near * (1 - near)) ** 2)


def _weighted(values: Array, weights: Array) -> Array:
    return np.asarray((values * weights).sum(-1) / weights.sum())


def _prior(variances: Array, freedoms: Array, pooled: Array) -> Estimate:
    """Estimate scale and degrees of freedom of the distribution of variances (..., methods).

    A method's variance over the scale then has an F distribution.
    """
    scale = np.where(pooled > 0, pooled, 1.0)[..., None]
    logs = np.log(np.maximum(variances / scale, SMALLEST))
    x = logs[..., None, :] - SCALES[:, None]
    ratios = np.exp(x)
    likelihoods = np.stack(
        [_log_likelihoods(x, ratios, freedoms, prior) for prior in FREEDOMS], axis=-1
    )
    by_freedom = likelihoods.max(-2)  # over the scales
    is_likely = by_freedom >= by_freedom.max(-1, keepdims=True) - LIKELY
    fewest = (np.cumsum(is_likely, axis=-1) == 0).sum(-1)  # the unlikely ones before come first
    by_scale = np.take_along_axis(likelihoods, fewest[..., None, None], axis=-1)[..., 0]
    best = np.argsort(by_scale, axis=-1)[..., -1]
    return Estimate(pooled * np.exp(SCALES[best]), np.asarray(FREEDOMS)[fewest])


def _log_likelihoods(x: Array, ratios: Array, freedoms: Array, prior: float) -> Array:
    """Log likelihoods (..., scales) of variances over scales `ratios` (..., scales, methods).

    `x` are their logarithms.
    """
    from scipy.special import gammaln

    constant = gammaln((freedoms + prior) / 2) - gammaln(prior / 2)
    constant = constant + freedoms / 2 * np.log(freedoms / prior)
    rest = freedoms / 2 * x - (freedoms + prior) / 2 * np.log1p(freedoms / prior * ratios)
    return np.asarray((constant + rest).sum(-1))
