"""How many seeds or test rows would decide a comparison, and the chance that they do.

The chance is predicted by drawing what further seeds and rows may show, and by deciding on it as
`significance` decides on real ones. A draw takes the unknown true values from their distributions
given the data (the variances between seeds, the methods' means over all seeds, the mean difference
over all test rows), then the new seeds and rows from these. This is the predictive power of
Spiegelhalter, Freedman & Blackburn, "Monitoring clinical trials: conditional or predictive power?"
(1986).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from peft_methods.analysis.margin import MARGIN
from peft_methods.analysis.samples import Array, Sample, variance_over_examples
from peft_methods.analysis.seed_variance import SeedVariance, common_variance
from peft_methods.analysis.significance import ALPHA, Pair

SURE = 0.9  # chance that a plan should have
DRAWS = 400
SEEDS = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30)  # numbers of seeds in all that are considered
TIMES_ROWS = (1, 2, 4, 8)  # of the present test rows


@dataclass(frozen=True)
class Plan:
    """Seeds of each method and test rows, and the chance (0..1) that they decide a comparison."""

    seeds: int
    rows: int
    chance: float

    @property
    def is_sure(self) -> bool:
        """Whether the chance is as high as a plan's should be."""
        return self.chance >= SURE


def plan(
    samples: Mapping[str, Sample], first: str, second: str, margin: float = MARGIN, alike: int = 0
) -> list[Plan]:
    """Return what would decide a pair: with the present rows, then, if that is not sure, with more.

    The first plan has the fewest seeds that are sure on the present test rows, or the most that are
    considered. The second, if any, has the fewest rows with which the comparison is sure, and the
    fewest seeds with these. All methods are taken to get the seeds. `alike` is the number of pairs
    that are not separable (0: all of them); the others need no further correction.
    """
    forecast = _Forecast.of(samples, first, second, margin, alike)
    plans: list[Plan] = []
    for times in TIMES_ROWS:
        found = forecast.fewest_seeds(times)
        if not plans or found.is_sure:
            plans.append(found)
        if found.is_sure:
            break
    return plans


@dataclass(frozen=True)
class _Forecast:
    """Two methods, the variance between seeds of all, and the levels of their tests."""

    first: Sample
    second: Sample
    common: SeedVariance
    methods: int
    pairs: int
    alike: int
    margin: float

    @classmethod
    def of(
        cls, samples: Mapping[str, Sample], first: str, second: str, margin: float, alike: int
    ) -> _Forecast:
        pairs = len(samples) * (len(samples) - 1) // 2
        common = common_variance(list(samples.values()))
        return cls(
            samples[first],
            samples[second],
            common,
            len(samples),
            pairs,
            alike or pairs,
            margin,
        )

    def fewest_seeds(self, times: int) -> Plan:
        """Return the plan with the fewest seeds that are sure on `times` the present rows.

        If none are, that with the most. More seeds never lower the chance by much.
        """
        present = max(self.first.seeds, self.second.seeds)
        allowed = [one for one in SEEDS if one > present - (times > 1)] or [present]
        chance = cache(partial(self._chance, times=times))
        place = min(bisect_left(allowed, SURE, key=chance), len(allowed) - 1)
        return Plan(allowed[place], times * self.first.examples, chance(allowed[place]))

    def _chance(self, seeds: int, times: int) -> float:
        """Return the share of draws in which the pair is better, worse or equal."""
        rng = np.random.default_rng(0)
        first, second = (
            _with_more(one, self.common, seeds, times, rng) for one in (self.first, self.second)
        )
        added = self.methods * (seeds - min(self.first.seeds, self.second.seeds))
        common = replace(self.common, freedom=self.common.freedom + added)
        shift = self._shift_of_new_rows(times, rng)
        difference, half, p, guard, _ = Pair.of(first, second, common).tests(
            ALPHA / self.pairs, ALPHA, first.mean - second.mean + shift
        )
        separable = np.maximum(p * self.alike, guard) < ALPHA
        equal = np.abs(difference) + half <= self.margin
        return float((separable | equal).mean())

    def _shift_of_new_rows(self, times: int, rng: np.random.Generator) -> Array:
        """Draw how new rows move the difference of the means over all rows."""
        if times == 1:
            return np.zeros(DRAWS)
        by_example = self.first.by_example - self.second.by_example
        known = variance_over_examples(by_example, self.first.scale).variance
        further = times - 1
        moved = np.sqrt(known * (1 + 1 / further)) * rng.standard_normal(DRAWS)
        return np.asarray(moved * further / times)


def _with_more(
    sample: Sample, common: SeedVariance, seeds: int, times: int, rng: np.random.Generator
) -> Sample:
    """Draw the sample of a method with `seeds` seeds in all, on `times` its rows.

    Mean and variance between seeds have the shape (DRAWS,); the other parts are taken as they are.
    """
    known = common.moderated(sample)
    spread = np.sqrt(known.variance * known.freedom / rng.chisquare(known.freedom, DRAWS))
    there, new = sample.seeds, max(seeds - sample.seeds, 0)
    mean, squares = sample.mean + np.zeros(DRAWS), (there - 1) * sample.seed_variance
    if new:
        true = mean + spread / np.sqrt(there) * rng.standard_normal(DRAWS)
        of_new = true + spread / np.sqrt(new) * rng.standard_normal(DRAWS)
        within = spread**2 * rng.chisquare(new - 1, DRAWS) if new > 1 else 0.0
        squares = squares + within + there * new / (there + new) * (mean - of_new) ** 2
        mean = (there * mean + new * of_new) / (there + new)
    return Sample(
        mean,
        np.tile(_with_less_noise(sample, there / (there + new)), times),
        squares / (there + new - 1) + np.zeros(DRAWS),
        sample.noise * there / (there + new) / times,
        there + new,
        sample.scale,
    )


def _with_less_noise(sample: Sample, share: float) -> Array:
    """Return the scores of the examples if only this share of their answers' noise is left."""
    deviations = sample.by_example - sample.mean
    variance = deviations.var()
    noise = sample.noise * sample.examples * (1 - share)
    left = max(1 - float(noise / variance), 0.0) if variance > 0 else 1.0
    return np.asarray(sample.mean + np.sqrt(left) * deviations)
