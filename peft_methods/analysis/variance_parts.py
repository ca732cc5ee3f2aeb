"""Where the noise comes from: the parts of the variance of a method's mean.

The mean over S seeds and n test rows varies since other seeds give other models (`seeds`), since
another test set has other rows (`rows`), and since models of equal quality answer different rows
correctly (`answers`). These are the components of the two-way layout with both factors random
(`samples`): seeds, examples, and single answers. They are estimated by the method of moments: each
mean square minus its share of the mean square of single answers. So every estimate is unbiased, and
one below 0 is possible; then its part cannot be told from 0.

**Uncertainty**: a mean square between seeds has few degrees of freedom, so its interval from the
chi-squared distribution is wide. That over rows has hundreds. So the interval of each share covers
the uncertainty of the seeds only.

**Parts of the seeds**: Bouthillier et al., "Accounting for variance in machine learning benchmarks"
(2021), vary one part at a time with the others fixed. The shares of such sessions need not add up
to that of the seeds: parts act together, and each is estimated with few seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from peft_methods.analysis.samples import Array, Estimate, Sample, satterthwaite
from peft_methods.analysis.significance import ALPHA


@dataclass(frozen=True)
class SeedPart:
    """The contribution (...) of seeds to the variance of a mean.

    `observed` is that of the seeds' means, which contains `answers`, that of single answers.
    """

    observed: Estimate
    answers: Array

    @property
    def variance(self) -> Array:
        """The unbiased estimate; it may be below 0."""
        return self.observed.variance - self.answers

    @property
    def interval(self) -> tuple[Array, Array]:
        """The 95 % interval, at least 0."""
        from scipy.special import chdtri  # the inverse of the chi-squared survival function

        squares, freedom = self.observed.variance * self.observed.freedom, self.observed.freedom
        low, high = (squares / chdtri(freedom, tail) for tail in (ALPHA / 2, 1 - ALPHA / 2))
        return np.maximum(low - self.answers, 0), np.maximum(high - self.answers, 0)


@dataclass(frozen=True)
class VarianceParts:
    """The contributions (...) to the variance of a mean. Their sum is its unbiased estimate."""

    seeds: SeedPart
    rows: Array
    answers: Array

    @property
    def total(self) -> Array:
        """The variance of the mean, without estimates below 0."""
        return np.maximum(self.seeds.variance, 0) + np.maximum(self.rows, 0) + self.answers


def parts_of(sample: Sample) -> VarianceParts:
    """Return the parts of the variance of a sample's mean. It needs two seeds or more."""
    over_rows = sample.by_example.var(-1, ddof=1) / sample.examples
    return VarianceParts(
        seeds_alone(sample, sample.seeds), over_rows - sample.noise, np.asarray(sample.noise)
    )


def seeds_alone(sample: Sample, seeds: int) -> SeedPart:
    """Return what the seeds of a sample would contribute to a mean over this number of seeds."""
    observed = Estimate(sample.own_variance.variance / seeds, sample.own_variance.freedom)
    return SeedPart(observed, sample.noise * sample.seeds / seeds)


def added(parts: Sequence[SeedPart]) -> SeedPart:
    """Add the contributions of independent methods."""
    observed = satterthwaite(*(one.observed for one in parts))
    return SeedPart(observed, np.asarray(sum(one.answers for one in parts)))


def added_parts(parts: Sequence[VarianceParts]) -> VarianceParts:
    """Add the variances of independent methods. The shares are then those of their mean."""
    return VarianceParts(
        added([one.seeds for one in parts]),
        np.asarray(sum(one.rows for one in parts)),
        np.asarray(sum(one.answers for one in parts)),
    )


@dataclass(frozen=True)
class Share:
    """A part's share of a variance, in 0..1, with its 95 % interval.

    `estimate` is None if the part cannot be told from 0: then it is at most `high`.
    """

    estimate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Shares:
    """The shares of the parts of the variance of a mean, and the mean's standard deviation.

    `parts` has those of single parts of the seeds, by name (`variation.PARTS`), where each was
    measured alone. `freedom` is that of the variance between seeds.
    """

    deviation: float
    seeds: Share
    rows: Share
    answers: Share
    freedom: float
    parts: Mapping[str, Share] = field(default_factory=dict)


def shares_of(
    parts: VarianceParts, alone: Mapping[str, SeedPart] | None = None, methods: int = 1
) -> Shares:
    """Return the shares of a mean's parts, and of the parts of the seeds that vary `alone`.

    `parts` may be the sum over several `methods`; the deviation is then that of a typical mean.
    """
    total, rows, answers = float(parts.total), max(float(parts.rows), 0), float(parts.answers)
    seeds = max(float(parts.seeds.variance), 0)
    low, high = (float(end) for end in parts.seeds.interval)
    rest = rows + answers

    def fixed(part: float) -> Share:
        ends = [_ratio(part, rest + end) for end in (high, low)]
        return Share(_ratio(part, total) if part > 0 else None, *ends)

    return Shares(
        float(np.sqrt(total / methods)),
        _share(seeds, (low, high), rest),
        fixed(rows),
        fixed(answers),
        float(parts.seeds.observed.freedom),
        {
            name: _share(found, (float(ends[0]), float(ends[1])), max(total - max(found, 0), 0))
            for name, one in (alone or {}).items()
            for found, ends in [(float(one.variance), one.interval)]
        },
    )


def _share(part: float, ends: tuple[float, float], rest: float) -> Share:
    """Return the share of a part, whose variance lies between `ends`, beside a fixed rest."""
    low, high = (_ratio(end, end + rest) for end in ends)
    return Share(_ratio(part, part + rest) if part > 0 else None, low, high)


def _ratio(part: float, total: float) -> float:
    return part / total if total > 0 else 0.0
