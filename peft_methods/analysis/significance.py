"""Significance of differences between methods: intervals and pairwise tests of their means.

The functions work on plain arrays: see `samples` for scores and the variance of a mean, and
`seed_variance` for the variance between seeds. For two methods, examples are paired and seeds are
not: seed 0 of one method and seed 0 of another have little in common, and unpaired seeds give more
degrees of freedom without raising false alarms.

**Two tests**: a difference counts only if both find it.

- The first uses the largest of three variances between seeds: the pair's own, the moderated one,
  and the one pooled over all methods. Its degrees of freedom are those of the moderated one, at
  most those of the pooled one. It is corrected for all pairs of the recipe.
- The second is Welch's test ("The generalization of Student's problem when several different
  population variances are involved", 1947), which uses the pair's own variance only. It guards
  against a method that spreads far more than the others: if its few seeds happen to agree, the
  first test takes its variance for that of the others. Such a method is in several pairs, but they
  err together, so there is no correction for their number. The test is done twice, with and
  without the variance over examples: many examples would give an estimate from three seeds more
  degrees of freedom than it has. Seeds of correlations, errors and losses are skewed, so the level
  is lower there (`SKEWED`). With two seeds, or with unlike numbers of seeds, Welch's degrees
  of freedom are too many: there they are those of the method with fewer seeds.

**Few examples**: no p is below that of the exact test whose null hypothesis is that each example's
difference has a random sign (Fisher, "The Design of Experiments", 1935).

**Multiple comparisons**: Holm, "A simple sequentially rejective multiple test procedure" (1979).
Intervals of differences use Bonferroni's correction, so that all of them hold simultaneously.

The error rates are measured by `pytest tests/analysis/test_error_rates.py -m simulation -s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from peft_methods.analysis.samples import (
    SEEDS_NEEDED,
    Array,
    Estimate,
    Sample,
    of_mean,
    satterthwaite,
    stacked,
    variance_over_examples,
)
from peft_methods.analysis.seed_variance import SeedVariance, common_variance, squared_level

LEVEL = 0.95  # confidence level of every interval
ALPHA = 1 - LEVEL  # false alarm rate over all pairs of a recipe
GUARD = 0.045  # level of the second test; with 0.05, two methods of unlike spread give 6.6 %
GUARD_OF_INTERVALS = 0.04  # the same for intervals; with 0.045, 93 % may hold
SKEWED = 0.7  # of both levels where the metric is no share; with 1, Spearman gives 7.8 %
FEW = 14  # up to so many examples that differ are tested exactly
AT_ONCE = 2**20  # differences of examples: pairs are tested together up to this size


def interval(sample: Sample, common: SeedVariance | None) -> tuple[float, float]:
    """Return the interval of one method's metric, in the unit of its scores.

    For shares it is Wilson's score interval with the effective sample size p (1 - p) / variance
    (Korn & Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", 1998), for other metrics Student's interval. It covers those
    of the method's own variance between seeds, with and without that over examples, and of the one
    moderated by all methods. With `common` None (one seed) it is the interval of this one model.
    """
    examples = variance_over_examples(sample.by_example, sample.scale)
    of = _wilson if sample.scale is None else _student
    if common is None:
        return of(sample, Estimate(examples.variance, np.asarray(np.inf)))
    own, moderated = (
        _of_seeds(one, sample) for one in (sample.own_variance, on_own_level(sample, common))
    )
    ends = [
        _of_seeds_alone(sample, own),
        *(of(sample, of_mean(one, examples, sample.noise)) for one in (own, moderated)),
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _of_seeds_alone(sample: Sample, variance: Estimate) -> tuple[float, float]:
    """Return Student's interval of the seeds: many examples would hide how little few seeds say."""
    low, high = _student(sample, variance)
    return (low, high) if sample.scale is not None else (max(low, 0.0), min(high, 1.0))


def _student(sample: Sample, variance: Estimate) -> tuple[float, float]:
    half = float(_quantile(variance.freedom, 1 - ALPHA / 2) * np.sqrt(variance.variance))
    return float(sample.mean) - half, float(sample.mean) + half


def on_own_level(sample: Sample, common: SeedVariance) -> Estimate:
    """Return a method's variance between seeds, moderated by that of all methods.

    A metric near 0 or 1 has little room to vary. So logits are taken to spread alike, not metrics.
    """
    level = squared_level(sample) / common.level
    prior = Estimate(common.prior.variance * level, common.prior.freedom)
    return replace(common, prior=prior).moderated(sample)


def _wilson(sample: Sample, variance: Estimate) -> tuple[float, float]:
    mean, examples = float(sample.mean), sample.examples
    # A mean of exactly 0 or 1 would give an effective sample size of 0: so p is moved inwards.
    near = (mean * examples + 1) / (examples + 2)
    size = min(near * (1 - near) / float(variance.variance), examples * sample.seeds)
    squared = float(_quantile(variance.freedom, 1 - ALPHA / 2)) ** 2 / size
    middle = (mean + squared / 2) / (1 + squared)
    half = np.sqrt(squared * max(mean * (1 - mean), 0.0) + squared**2 / 4) / (1 + squared)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _quantile(freedom: Array, probability: float) -> Array:
    """Return a quantile of Student's t; with infinite freedom, of the normal distribution."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(np.minimum(freedom, 1e9), probability))


@dataclass(frozen=True)
class Differences:
    """Comparison of every pair of methods: `pairs` (index, index), then arrays (..., pairs).

    `difference`: first mean minus second. `low` and `high`: simultaneous intervals over all pairs.
    `p`: two-sided, adjusted by Holm's method. `wins`: the probability that a new seed of the first
    is better than a new seed of the second on the same examples (Bouthillier et al., "Accounting
    for variance in machine learning benchmarks", 2021), by the predictive distribution of the
    seeds' moderated variances.
    """

    pairs: tuple[tuple[int, int], ...]
    difference: Array
    low: Array
    high: Array
    p: Array
    wins: Array


def differences(samples: Sequence[Sample], alpha: float = ALPHA) -> Differences:
    """Compare every two methods on the same examples. Raises `ValueError` below two seeds each.

    `alpha` is the false alarm rate over all pairs. With a smaller one, intervals are wider and p is
    raised, so that a difference is significant if p is below `ALPHA` in any case.
    """
    if any(sample.seeds < SEEDS_NEEDED for sample in samples):
        raise ValueError(
            f"each method needs {SEEDS_NEEDED} seeds or more: one seed shows no spread"
        )
    pairs = tuple(combinations(range(len(samples)), 2))
    if not pairs:
        empty = np.zeros((*samples[0].mean.shape, 0)) if samples else np.zeros(0)
        return Differences((), empty, empty, empty, empty, empty)
    common = common_variance(samples)
    found = np.empty((5, len(pairs), *samples[0].mean.shape))
    for chosen in _alike(samples, pairs):
        first, second = (stacked([samples[pairs[k][end]] for k in chosen]) for end in (0, 1))
        found[:, chosen] = Pair.of(first, second, common).tests(alpha / len(pairs), alpha)
    difference, margin, p, guard, wins = np.moveaxis(found, 1, -1)
    adjusted = np.minimum(np.maximum(holm(p), guard) * ALPHA / alpha, 1.0)
    return Differences(pairs, difference, difference - margin, difference + margin, adjusted, wins)


def _alike(samples: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield indices of pairs that are tested at once: as many seeds each, and not too many."""
    found: dict[tuple[int, int], list[int]] = {}
    for index, (first, second) in enumerate(pairs):
        found.setdefault((samples[first].seeds, samples[second].seeds), []).append(index)
    size = max(1, AT_ONCE // max(1, samples[0].by_example.size))
    for of in found.values():
        yield from (of[start : start + size] for start in range(0, len(of), size))


@dataclass(frozen=True)
class Pair:
    """Two methods: their paired differences by example (..., n), and the variances of the tests."""

    by_example: Array
    together: Estimate  # with the variance between seeds of all methods
    own: tuple[Estimate, ...]  # with that of these two only
    new_seeds: Estimate  # of the difference of two further seeds, predicted from these
    strictness: float = 1.0  # factor of the level of the second test

    @classmethod
    def of(cls, first: Sample, second: Sample, common: SeedVariance) -> Pair:
        """Compute the variances of a pair, given that between the seeds of all methods."""
        by_example = first.by_example - second.by_example
        examples = variance_over_examples(by_example, first.scale)
        noise = first.noise + second.noise
        own = satterthwaite(*(_of_seeds(one.own_variance, one) for one in (first, second)))
        alone = own
        if not first.seeds == second.seeds > SEEDS_NEEDED:
            fewer = min(first.freedom, second.freedom)
            alone = Estimate(own.variance, np.full_like(own.variance, fewer))
        together = _together(first, second, own, common)
        # A further seed varies about the true mean, which the mean of the seeds only estimates.
        further = [
            Estimate(one.variance * (1 + 1 / of.seeds), one.freedom)
            for of in (first, second)
            for one in [common.moderated(of)]
        ]
        return cls(
            by_example,
            of_mean(together, examples, noise),
            (of_mean(own, examples, noise), alone),
            satterthwaite(*further),
            1.0 if first.scale is None else SKEWED,
        )

    def tests(
        self, level: float, of_all: float, difference: Array | None = None
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Return the difference, half its interval, the p values of the two tests, and `wins`.

        `level` is the significance level of this pair, and `of_all` that of all pairs together. The
        second p is scaled so that it is significant if it is below `of_all`. `difference` replaces
        that of the examples.
        """
        difference = self.by_example.mean(-1) if difference is None else difference
        guard_of_intervals = GUARD_OF_INTERVALS * self.strictness
        margins = [
            np.sqrt(variance.variance) * _quantile(variance.freedom, 1 - one_level / 2)
            for variance, one_level in [
                (self.together, level),
                *((one, of_all * guard_of_intervals / ALPHA) for one in self.own),
            ]
        ]
        guard = np.max([p_value(difference, one) for one in self.own], axis=0)
        return (
            difference,
            np.max(margins, axis=0),
            np.maximum(p_value(difference, self.together), exact_p(self.by_example)),
            np.minimum(guard * ALPHA / (GUARD * self.strictness), 1.0),
            _probability_above_zero(difference, self.new_seeds),
        )


def _of_seeds(variance: Estimate, sample: Sample) -> Estimate:
    return Estimate(variance.variance / sample.seeds, variance.freedom)


def _together(first: Sample, second: Sample, own: Estimate, common: SeedVariance) -> Estimate:
    """Return the variance between seeds of a pair's difference for the test on all methods."""
    moderated = satterthwaite(*(_of_seeds(common.moderated(one), one) for one in (first, second)))
    pooled = common.pooled * (1 / first.seeds + 1 / second.seeds)
    return Estimate(
        np.maximum(np.maximum(own.variance, moderated.variance), pooled),
        np.minimum(moderated.freedom, common.freedom),
    )


def exact_p(by_example: Array) -> Array:
    """Return the two-sided p of the mean of differences (..., n) under random signs.

    0 where more than `FEW` differ from 0: the other tests hold there.
    """
    found = np.zeros(by_example.shape[:-1])
    differ = by_example != 0
    for where in np.argwhere(differ.sum(-1) <= FEW):
        index = tuple(where)
        found[index] = _share_as_large(by_example[index][differ[index]])
    return found


def _share_as_large(values: Array) -> float:
    signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    sums = np.abs(signs @ values)
    return float((sums >= np.abs(values.sum()) * (1 - 1e-9)).mean())


def p_value(difference: Array, variance: Estimate) -> Array:
    """Return the two-sided p of Student's t: 1 for no difference, 0 for one without any error."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / np.sqrt(variance.variance))
    return np.asarray(2 * stdtr(variance.freedom, -t))


def _probability_above_zero(difference: Array, variance: Estimate) -> Array:
    """Return the probability that a value with this mean and variance is above 0."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(difference == 0, 0.0, difference / np.sqrt(variance.variance))
    return np.asarray(stdtr(variance.freedom, t))


def holm(p: Array) -> Array:
    """Return Holm's step-down adjusted p values over the last axis, in the given order."""
    order = np.argsort(p, axis=-1)
    steps = np.arange(p.shape[-1], 0, -1)
    raised = np.maximum.accumulate(
        np.minimum(np.take_along_axis(p, order, -1) * steps, 1.0), axis=-1
    )
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, raised, -1)
    return adjusted
