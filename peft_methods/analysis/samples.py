"""Scores of one method and the parts of their variance: seeds, test examples, single answers.

A score belongs to one trained model and one test example: 1 or 0 for accuracy, the example's
contribution to another metric (`Task.example_scores`). The mean of a model's scores is its metric.
Scores have the shape (seeds, examples). Both axes are samples: another seed gives another model,
another test set has other examples. A test that pools the seeds (such as McNemar's test on all
their answers) ignores the variance between seeds and raises false alarms. A test on the seeds'
means alone ignores the variance between test examples.

**Variance of a mean** over S seeds and n examples: the two-way layout with both factors random, as
for readers and cases in Gallas, "One-shot estimate of MRMC variance: AUC" (2006). It has three
parts, computed from the mean squares: the variance of the seeds' means divided by S, plus the
variance of the examples' means divided by n, minus the variance of single answers, which is
contained in both. The result is never smaller than either of the first two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEEDS_NEEDED = 2  # to estimate a variance


@dataclass(frozen=True)
class Estimate:
    """An estimated variance (...) and its degrees of freedom (...)."""

    variance: Array
    freedom: Array


@dataclass(frozen=True)
class Sample:
    """Statistics of one method's scores. Leading axes, if any, are repetitions of a simulation.

    `mean` (...): over seeds and examples. `by_example` (..., n): mean over seeds.
    `seed_variance` (...): variance of the seeds' means, nan for one seed.
    `noise` (...): the part of the mean's variance that comes from single answers.
    `scale`: None for shares, which lie between 0 and 1. Else the standard deviation over examples
    that is typical of the compared methods: the size of what a single example may contribute.
    """

    mean: Array
    by_example: Array
    seed_variance: Array
    noise: Array
    seeds: int
    scale: float | None = None

    @property
    def examples(self) -> int:
        """The number of test examples."""
        return int(self.by_example.shape[-1])

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the variance between seeds."""
        return self.seeds - 1

    @property
    def own_variance(self) -> Estimate:
        """The variance between seeds, by this method's seeds alone."""
        return Estimate(self.seed_variance, np.full_like(self.seed_variance, self.freedom))


def same_examples(examples: Sequence[NDArray[Any]]) -> bool:
    """Whether all are equal. Those of one data set are often the same object."""
    return all(one is examples[0] or np.array_equal(one, examples[0]) for one in examples)


def scale_of_scores(scores: Iterable[Array | None]) -> float:
    """Return the standard deviation over examples (n,) that is typical of several runs."""
    deviations = [float(one.std()) for one in scores if one is not None]
    return float(np.median(deviations)) if deviations else 1.0


def sample_of(scores: Array, scale: float | None = None) -> Sample:
    """Compute the `Sample` of scores (..., seeds, examples). `scale`: see `Sample`."""
    seeds, examples = scores.shape[-2:]
    by_seed, by_example = scores.mean(-1), scores.mean(-2)
    mean = by_seed.mean(-1)
    if seeds < SEEDS_NEEDED:
        return Sample(
            mean, by_example, np.full_like(mean, np.nan), np.zeros_like(mean), seeds, scale
        )
    of_seeds = ((by_seed - mean[..., None]) ** 2).sum(-1)
    of_examples = ((by_example - mean[..., None]) ** 2).sum(-1)
    rest = (
        ((scores - mean[..., None, None]) ** 2).sum((-2, -1))
        - examples * of_seeds
        - seeds * of_examples
    )
    noise = np.maximum(rest, 0) / ((seeds - 1) * max(examples - 1, 1)) / (seeds * examples)
    return Sample(mean, by_example, of_seeds / (seeds - 1), noise, seeds, scale)


def stacked(samples: Sequence[Sample]) -> Sample:
    """Return samples of equally many seeds as one, with an axis for them before all others."""
    mean, by_example, seed_variance, noise = (
        np.stack([getattr(one, name) for one in samples])
        for name in ("mean", "by_example", "seed_variance", "noise")
    )
    return Sample(mean, by_example, seed_variance, noise, samples[0].seeds, samples[0].scale)


def satterthwaite(*parts: Estimate) -> Estimate:
    """Return the sum of independent variances.

    Degrees of freedom: Satterthwaite, "An approximate distribution of estimates of variance
    components" (1946).
    """
    total = np.asarray(sum(part.variance for part in parts))
    return Estimate(total, _freedom(total, parts))


def of_mean(seeds: Estimate, examples: Estimate, noise: Array) -> Estimate:
    """Return the variance of a mean or of a difference of means, from its parts.

    `noise` is the part that both others contain.
    """
    parts = (seeds, examples)
    total = np.maximum(
        np.maximum(seeds.variance, examples.variance), seeds.variance + examples.variance - noise
    )
    return Estimate(total, _freedom(total, parts))


def _freedom(total: Array, parts: tuple[Estimate, ...]) -> Array:
    squares = np.asarray(sum(part.variance**2 / part.freedom for part in parts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, total**2 / squares, 1.0)


def variance_over_examples(scores: Array, scale: float | None = None) -> Estimate:
    """Return the variance of the mean of scores or differences (..., n) over examples.

    It is at least that of a proportion of 1 / (n + 2), Laplace's estimate for what no example has
    shown: where all are equal, the next one may still differ, by `scale` (None: 1). Degrees
    of freedom allow for the kurtosis: where few examples make up the variance, as with rare
    classes, it is known less well than n - 1 suggests.
    """
    examples = scores.shape[-1]
    if examples < 2:
        shape = scores.shape[:-1]
        return Estimate(np.full(shape, 0.25 * (scale or 1.0) ** 2), np.ones(shape))
    deviations = scores - scores.mean(-1, keepdims=True)
    squares = (deviations**2).mean(-1)
    fourth = (deviations**4).mean(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(squares > 0, fourth / squares**2 - 3, 0.0)
    freedom = 2 / (2 / (examples - 1) + np.maximum(excess, 0) / examples)
    variance = squares / (examples - 1)
    unseen = (examples + 1) / (examples + 2) ** 2 / examples * (scale or 1.0) ** 2
    return Estimate(np.maximum(variance, unseen), freedom)
