"""Which differences are more than chance: intervals, paired comparisons, groups and the Pareto front, on plain arrays.

A score is what one trained model got for one test example: 1 or 0 for accuracy, its share of the F1 for macro F1; the
mean of a model's scores is its metric. Scores come as (seeds, examples). Both are samples: another seed gives another
model, another test set other examples. A test that pools the seeds (McNemar's over all their answers) takes the seeds'
spread for none and cries wolf; one on the seeds' means alone takes the test set for the whole world.

**The variance of a mean** over S seeds and n examples is that of the two-way layout with both factors random, as for
readers and cases in Gallas, "One-shot estimate of MRMC variance: AUC" (2006), with three parts from its mean squares: the
spread of the seeds' means over S, the spread of the examples' means over n, less the chance of single answers, which is
in both. It is never less than either of the first two. For two methods, examples are paired and seeds are not: seed 0 of
one method and seed 0 of another share little, and unpaired they give more degrees of freedom and no false alarm.

**The spread of seeds** is estimated from two or three seeds a method, which says next to nothing: the t quantile for two
degrees of freedom and 28 comparisons is 24. So a pair's spread is that of all methods together (as in an analysis of
variance), or its own where that is the greater, so that one method with wild seeds is not judged by its calm neighbours'.
Degrees of freedom: Satterthwaite, "An approximate distribution of estimates of variance components" (1946).

**All pairs at once**: Holm, "A simple sequentially rejective multiple test procedure" (1979); intervals of differences
are Bonferroni's, so that all of them hold together.

Measured with `pytest tests/test_statistics.py -k "alarm or power" -s` (seed-to-seed standard deviation 2.3 points,
1,000 test examples, accuracy 80 %, 1,000 simulations each):

| equal methods | seeds | a false alarm in | | difference | methods | seeds | found in |
|---|---|---|---|---|---|---|---|
| 8 | 3 | 3.1 % (2.3 % with 500 examples, 2.5 % with 2,000) | | 8 points | 2 | 3 | 83.2 % |
| 8 | 2 | 2.3 % | | 5 points | 2 | 7 | 88.1 % |
| 2 | 3 | 6.0 % | | 12 points | 8 | 3 | 89.8 % |
| 8, spreads 0.5 to 5 points | 3 | 5.7 % | | 5 points | 8 | 15 | 85.0 % |
| 8, one of 5 points beside seven of 0.5 | 3 | 7.5 % | | | | | |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL  # false alarms over all pairs of a recipe
SEEDS_NEEDED = 2  # for any spread


def correct(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> Array:
    """Scores (examples,) whose mean is the accuracy: 1 where the prediction is right, else 0."""
    return (predicted == labels).astype(np.float64)


def macro_f1_scores(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Array:
    """Scores (examples,) whose mean is the macro F1 and whose spread over examples is its variance, to first order.

    F1 of a class is 2 TP / (T + P) with T true and P predicted rows; a row's influence on it is
    (2 [both] - F1 ([true] + [predicted])) / (T + P), which sums to 0 over rows (the infinitesimal jackknife, Efron 1982).
    A class neither true nor predicted counts 0, as in scikit-learn.
    """
    rows = np.arange(classes)
    true, guessed = (
        (labels[:, None] == rows).astype(np.float64),
        (predicted[:, None] == rows).astype(np.float64),
    )
    size = np.maximum((true + guessed).sum(0), 1)
    f1 = 2 * (true * guessed).sum(0) / size
    influence = (2 * true * guessed - f1 * (true + guessed)) / size
    scores: Array = f1.mean() + len(labels) * influence.mean(1)
    return scores


@dataclass(frozen=True)
class Sample:
    """One method's scores, summed up; leading axes, if any, are repetitions (of a simulation).

    `mean` (...) over seeds and examples; `by_example` (..., n) over seeds alone; `seed_variance` (...) of the seeds'
    means, nan for one seed; `noise` (...) the part of the mean's variance that is the chance of single answers.
    """

    mean: Array
    by_example: Array
    seed_variance: Array
    noise: Array
    seeds: int


def summed_up(scores: Array) -> Sample:
    """A `Sample` of scores (..., seeds, examples)."""
    seeds, examples = scores.shape[-2:]
    by_seed, by_example = scores.mean(-1), scores.mean(-2)
    mean = by_seed.mean(-1)
    if seeds < SEEDS_NEEDED:
        return Sample(mean, by_example, np.full_like(mean, np.nan), np.zeros_like(mean), seeds)
    of_seeds = ((by_seed - mean[..., None]) ** 2).sum(-1)
    of_examples = ((by_example - mean[..., None]) ** 2).sum(-1)
    rest = (
        ((scores - mean[..., None, None]) ** 2).sum((-2, -1))
        - examples * of_seeds
        - seeds * of_examples
    )
    noise = np.maximum(rest, 0) / ((seeds - 1) * max(examples - 1, 1)) / (seeds * examples)
    return Sample(mean, by_example, of_seeds / (seeds - 1), noise, seeds)


@dataclass(frozen=True)
class Spread:
    """What all methods together say of the spread of seeds: its variance (...) and its degrees of freedom."""

    variance: Array
    freedom: int


def common_spread(samples: Sequence[Sample]) -> Spread:
    """The methods' seed variances, weighted by their degrees of freedom. At least one method must have two seeds."""
    known = [sample for sample in samples if sample.seeds >= SEEDS_NEEDED]
    freedom = sum(sample.seeds - 1 for sample in known)
    return Spread(
        np.asarray(sum((s.seeds - 1) * s.seed_variance for s in known)) / freedom, freedom
    )


def _total(
    of_seeds: Array, of_examples: Array, noise: Array, freedom: int, examples: int
) -> tuple[Array, Array]:
    """Variance of a mean or difference from its parts, and its degrees of freedom."""
    total = np.maximum(np.maximum(of_seeds, of_examples), of_seeds + of_examples - noise)
    parts = of_seeds**2 / freedom + of_examples**2 / max(examples - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total, np.where(parts > 0, total**2 / parts, 1.0)


def interval(sample: Sample, spread: Spread | None) -> tuple[float, float]:
    """The interval of one method's metric, in 0..1: Wilson's score interval with the sample size that the variance speaks of.

    That size is p (1 - p) / variance (Korn & Graubard, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", 1998); with `spread` None (one seed) the interval is that of this one model.
    """
    mean, examples = float(sample.mean), sample.by_example.shape[-1]
    of_examples = np.asarray(sample.by_example.var(ddof=1) / examples if examples > 1 else 0.25)
    if spread is None:
        variance, freedom = of_examples, np.asarray(np.inf)
    else:
        own = sample.seed_variance if sample.seeds >= SEEDS_NEEDED else spread.variance
        of_seeds = np.maximum(own, spread.variance) / sample.seeds
        variance, freedom = _total(of_seeds, of_examples, sample.noise, spread.freedom, examples)
    near = (mean * examples + 1) / (
        examples + 2
    )  # at 0 or 1 no size at all would be left of a variance that other methods show
    size = (
        min(near * (1 - near) / float(variance), examples * sample.seeds)
        if variance > 0
        else examples
    )
    return _wilson(mean, size, float(_quantile(freedom, 1 - ALPHA / 2)))


def _wilson(mean: float, size: float, quantile: float) -> tuple[float, float]:
    squared = quantile**2 / size
    middle = (mean + squared / 2) / (1 + squared)
    half = (
        quantile
        * np.sqrt(max(mean * (1 - mean), 0.0) / size + squared / (4 * size))
        / (1 + squared)
    )
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _quantile(freedom: Array, probability: float) -> Array:
    """Student's t; for infinite freedom the normal distribution."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(np.minimum(freedom, 1e9), probability))


@dataclass(frozen=True)
class Differences:
    """Every pair of methods: `pairs` (index, index), and arrays (..., pairs) in their order.

    `difference` of the means, first less second; `low` and `high` hold for all pairs at once; `p` is Holm's, two-sided.
    """

    pairs: tuple[tuple[int, int], ...]
    difference: Array
    low: Array
    high: Array
    p: Array


def differences(samples: Sequence[Sample]) -> Differences:
    """Compare every two methods on the same examples. Each needs two seeds; raises `ValueError` for fewer."""
    if any(sample.seeds < SEEDS_NEEDED for sample in samples):
        raise ValueError(
            f"each method needs {SEEDS_NEEDED} seeds or more: one seed shows no spread"
        )
    pairs = tuple(combinations(range(len(samples)), 2))
    if not pairs:
        empty = np.zeros((*samples[0].mean.shape, 0)) if samples else np.zeros(0)
        return Differences((), empty, empty, empty, empty)
    spread = common_spread(samples)
    compared = [_compared(samples[i], samples[j], spread) for i, j in pairs]
    difference, error, freedom = (np.stack(parts, axis=-1) for parts in zip(*compared, strict=True))
    margin = error * _quantile(freedom, 1 - ALPHA / (2 * len(pairs)))
    return Differences(
        pairs,
        difference,
        difference - margin,
        difference + margin,
        holm(_p_value(difference, error, freedom)),
    )


def _compared(first: Sample, second: Sample, spread: Spread) -> tuple[Array, Array, Array]:
    """Difference of two means, its standard error and degrees of freedom."""
    own = first.seed_variance / first.seeds + second.seed_variance / second.seeds
    shared = spread.variance * (1 / first.seeds + 1 / second.seeds)
    apart = first.by_example - second.by_example
    examples = apart.shape[-1]
    of_examples = (
        apart.var(-1, ddof=1) / examples if examples > 1 else np.full_like(first.mean, 0.25)
    )
    variance, freedom = _total(
        np.maximum(own, shared), of_examples, first.noise + second.noise, spread.freedom, examples
    )
    return first.mean - second.mean, np.sqrt(variance), freedom


def _p_value(difference: Array, error: Array, freedom: Array) -> Array:
    """Two-sided p of Student's t. No difference is p = 1 and a difference without any error p = 0."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / error)
    return np.asarray(2 * stdtr(freedom, -t))


def holm(p: Array) -> Array:
    """Holm's step-down adjusted p values over the last axis, in the order given."""
    order = np.argsort(p, axis=-1)
    steps = np.arange(p.shape[-1], 0, -1)
    raised = np.maximum.accumulate(
        np.minimum(np.take_along_axis(p, order, -1) * steps, 1.0), axis=-1
    )
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, raised, -1)
    return adjusted


def shift_p(worse: Sequence[float]) -> float:
    """One-sided p that methods got worse together: Student's t of their changes (Gosset 1908); 1 for fewer than three.

    Each method is one observation, so this holds with one seed each, and one method gone astray is no common shift.
    """
    changes = np.asarray(worse, dtype=np.float64)
    changes = changes[np.isfinite(changes)]
    if len(changes) < 3 or changes.mean() <= 0:
        return 1.0
    error = changes.std(ddof=1) / np.sqrt(len(changes))
    return float(_p_value(changes.mean(), error, np.asarray(len(changes) - 1.0))) / 2


def explained_by_seeds(
    before: Sequence[float], now: Sequence[float], others: Sequence[Sequence[float]]
) -> float | None:
    """How much larger the mean of `now` may be than that of `before` by the seeds' spread alone; None where one seed shows none.

    One-sided, with a false alarm in 5 % over all methods: this one and the `others`, whose values of a seed each help to
    tell the spread, as in `common_spread`.
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


def letters(count: int, apart: Sequence[tuple[int, int]]) -> list[str]:
    """Compact letter display of `count` methods, best first: two share a letter unless the pair is in `apart`.

    Insert and absorb: Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons" (2004).
    """
    groups = [frozenset(range(count))] if count else []
    for first, second in apart:
        both = frozenset((first, second))
        split = {
            part
            for group in groups
            for part in ((group - {first}, group - {second}) if both <= group else (group,))
        }
        groups = [group for group in split if not any(group < other for other in split)]
    ordered = sorted(groups, key=sorted)
    return [
        "".join(_letter(i) for i, group in enumerate(ordered) if method in group)
        for method in range(count)
    ]


def _letter(index: int) -> str:
    """a … z, then a1, b1, …"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


def pareto(costs: Array) -> list[bool | None]:
    """Which rows of costs (rows, figures; less is better) no other beats in one figure without losing in another.

    A row with a missing (nan) figure is neither on the front nor off it: None, and it beats nobody.
    """
    known = ~np.isnan(costs).any(axis=1)
    found: list[bool | None] = []
    for row in costs:
        better = (costs[known] <= row).all(axis=1) & (costs[known] < row).any(axis=1)
        found.append(None if np.isnan(row).any() else not better.any())
    return found
