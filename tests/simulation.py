"""Simulated answers of methods whose true accuracies are known, to measure error rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from peft_methods.analysis.samples import Estimate, Sample, of_mean, sample_of
from peft_methods.analysis.seed_variance import common_variance
from peft_methods.analysis.significance import ALPHA, differences, interval, p_value
from peft_methods.tasks.class_scores import macro_f1_scores

BATCH = 25


@dataclass(frozen=True)
class Setting:
    """Methods with true `accuracies`, standard deviations over seeds in points, and seeds.

    `spreads` are those at an accuracy of 80 %: effects of a seed are normal on the probit scale, so
    that a method near 100 % varies less. The mean over all seeds is the accuracy, whatever the
    spread. With `shares` of classes, labels are drawn from them and the metric is the macro F1.
    """

    accuracies: tuple[float, ...]
    spreads: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: int = 1000
    shares: tuple[float, ...] = ()

    def __str__(self) -> str:
        spreads = sorted(set(self.spreads))
        seeds = sorted(set(self.seeds))
        return (
            f"{len(self.accuracies)} methods at {100 * self.accuracies[-1]:g} %, "
            f"spread {'-'.join(f'{one:g}' for one in (spreads[0], spreads[-1]))}, "
            f"seeds {'-'.join(map(str, (seeds[0], seeds[-1])))}, {self.rows} rows"
            f"{', macro F1' if self.shares else ''}"
        )


def equal(
    methods: int,
    spreads: Sequence[float],
    seeds: Sequence[int],
    accuracy: float = 0.8,
    **other: Any,
) -> Setting:
    """Methods of one accuracy. Spreads and seeds are repeated as often as needed."""
    return Setting(
        (accuracy,) * methods, _filled(spreads, methods), _filled(seeds, methods), **other
    )


def _filled(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    """The first values, then the last one again and again."""
    return tuple(values[min(index, len(values) - 1)] for index in range(count))


def samples(setting: Setting, repetitions: int, seed: int = 5) -> Iterator[list[Sample]]:
    """Yield batches of repetitions, each with a sample of every method.

    An answer is right if the sum of the example's difficulty for all methods, its difficulty for
    this method and chance is below the seed's level, as quantiles of a normal distribution. Methods
    then agree with each other about as much as trained encoders do.
    """
    rng = np.random.default_rng(seed)
    for _ in range(repetitions // BATCH):
        labels = (
            rng.choice(len(setting.shares), (BATCH, setting.rows), p=setting.shares)
            if (setting.shares)
            else None
        )
        shared = rng.standard_normal((BATCH, 1, setting.rows), dtype=np.float32)
        found = []
        for accuracy, spread, seeds in zip(
            setting.accuracies, setting.spreads, setting.seeds, strict=True
        ):
            sigma = spread / 100 / norm.pdf(ndtri(0.8))
            level = ndtri(accuracy) * np.sqrt(1 + sigma**2)
            drawn = level + sigma * rng.standard_normal((BATCH, seeds, 1), dtype=np.float32)
            own = rng.standard_normal((BATCH, 1, setting.rows), dtype=np.float32)
            chance = rng.standard_normal((BATCH, seeds, setting.rows), dtype=np.float32)
            difficulty = np.sqrt(0.45) * shared + np.sqrt(0.2) * own + np.sqrt(0.35) * chance
            right = difficulty < drawn
            scores = right if labels is None else _macro_f1(right, labels, setting, rng)
            found.append(sample_of(scores.astype(np.float64)))
        yield found


def _macro_f1(right: Any, labels: Any, setting: Setting, rng: Any) -> Any:
    """Scores of answers (batch, seeds, rows), of which the wrong ones are a random other class."""
    classes = len(setting.shares)
    other = (labels[:, None] + rng.integers(1, classes, right.shape)) % classes
    predicted = np.where(right, labels[:, None], other)
    return np.stack(
        [
            [macro_f1_scores(of_seed, truth, classes) for of_seed in one]
            for one, truth in zip(predicted, labels, strict=True)
        ]
    )


def share(
    setting: Setting, decide: Callable[[list[Sample]], Any], repetitions: int = 1000
) -> float:
    """Return the share of repetitions for which a decision on all methods' samples is true."""
    return float(np.mean([decide(batch) for batch in samples(setting, repetitions)]))


def any_alarm(methods: list[Sample]) -> Any:
    """Whether any pair is significant."""
    return (differences(methods).p < ALPHA).any(axis=-1)


def first_two_separate(methods: list[Sample]) -> Any:
    """Whether the first two methods are significantly different."""
    return differences(methods).p[:, 0] < ALPHA


def pooled_separate(methods: list[Sample]) -> Any:
    """The same by the pooled variance alone, which is the best test if all methods spread alike."""
    first, second, *_ = methods
    common = common_variance(methods)
    noise, by_example = first.noise + second.noise, first.by_example - second.by_example
    own = first.seed_variance / first.seeds + second.seed_variance / second.seeds
    shared = common.pooled * (1 / first.seeds + 1 / second.seeds)
    freedom = np.full_like(shared, common.freedom)
    examples = Estimate(
        by_example.var(-1, ddof=1) / first.examples, np.full_like(shared, first.examples - 1)
    )
    total = of_mean(Estimate(np.maximum(own, shared), freedom), examples, noise)
    pairs = len(methods) * (len(methods) - 1) / 2
    return p_value(by_example.mean(-1), total) < ALPHA / pairs


def all_differences_covered(methods: list[Sample]) -> Any:
    """Whether the intervals of all differences contain 0, for methods that are equal."""
    found = differences(methods)
    return ((found.low <= 0) & (found.high >= 0)).all(axis=-1)


def covered(accuracies: Sequence[float]) -> Callable[[list[Sample]], Any]:
    """Return a function that tells which methods' intervals contain the true accuracies."""

    def decide(methods: list[Sample]) -> Any:
        found = []
        for repetition in range(BATCH):
            chosen = [one_of(sample, repetition) for sample in methods]
            common = common_variance(chosen)
            for sample, accuracy in zip(chosen, accuracies, strict=True):
                low, high = interval(sample, common)
                found.append(low <= accuracy <= high)
        return found

    return decide


def one_of(sample: Sample, repetition: int) -> Sample:
    """Return the sample of one repetition of a simulation."""
    names = ("mean", "by_example", "seed_variance", "noise")
    return replace(sample, **{name: getattr(sample, name)[repetition] for name in names})
