"""Bootstrap of scores (seeds, data sets) that draws seeds again within each data set (stratified).

A draw is described by how often it has each run. So a statistic of thousands of draws is a product
of matrices, and time and memory grow with the number of runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peft_methods.analysis.samples import SEEDS_NEEDED, Array

DRAWS = 2000
TRIMMED = 0.25  # share of runs left out at each end
AT_ONCE = 2**22  # counts that are summed up at once

Counts = NDArray[np.float32]  # whole numbers, and halves: sums of them are exact up to 2**23


@dataclass(frozen=True)
class Resampled:
    """Draws of `scores` (seeds, data sets); `counts` (draws, seeds, data sets) of each run."""

    scores: Array
    counts: Counts

    @cached_property
    def iqm(self) -> Array:
        """The interquartile mean (draws,) of each draw."""
        order = np.argsort(self.scores, axis=None)
        ascending, cut = self.scores.ravel()[order], int(TRIMMED * self.scores.size)
        ends = cut, self.scores.size - cut
        size = max(1, AT_ONCE // self.scores.size)
        found = []
        for start in range(0, len(self.counts), size):
            several = self.counts[start : start + size].reshape(-1, self.scores.size)[:, order]
            inside = np.clip(np.cumsum(several, axis=1, dtype=np.float64), *ends)
            inside = np.diff(inside, axis=1, prepend=ends[0])
            found.append(inside @ ascending / (ends[1] - ends[0]))
        return np.concatenate(found)

    def shares_above(self, thresholds: Array) -> Array:
        """Return the share of runs above each threshold (thresholds, draws)."""
        above = (self.scores.ravel()[:, None] > thresholds).astype(np.float32)
        counts = self.counts.reshape(len(self.counts), -1) @ above
        return np.asarray(counts, dtype=np.float64).T / self.scores.size

    def better_than(self, other: Resampled) -> Array:
        """Return the probability (draws,) that a run is better than one of `other`.

        It is averaged over data sets, and ties count half.
        """
        total = np.zeros(len(self.counts))
        for place in range(self.scores.shape[1]):
            wins = _wins(self.scores[:, place], other.scores[:, place]).astype(np.float32)
            total += ((self.counts[..., place] @ wins) * other.counts[..., place]).sum(axis=1)
        return total / (self.scores.size * len(other.scores))


def iqm(scores: Array) -> float:
    """Return the interquartile mean of scores over all seeds and data sets."""
    from scipy.stats import trim_mean

    return float(trim_mean(scores, TRIMMED, axis=None))


def improvement(first: Array, second: Array) -> float:
    """Return the probability that a run of the first is better than one of the second.

    Both are (seeds, data sets). It is averaged over data sets, and ties count half.
    """
    pairs = zip(first.T, second.T, strict=True)
    return float(np.mean([_wins(one, other).mean() for one, other in pairs]))


def resampled(scores: Array, seed: int = 0) -> Resampled | None:
    """Return bootstrap draws of scores (seeds, data sets). None for one seed.

    Resampled seeds spread less than seeds do, so deviations are scaled up.
    """
    seeds = len(scores)
    if seeds < SEEDS_NEEDED:
        return None
    mean = scores.mean(axis=0)
    scaled = mean + (scores - mean) * np.sqrt(seeds / (seeds - 1))
    rows = np.random.default_rng(seed).integers(seeds, size=(DRAWS, *scores.shape))
    counts = np.empty(rows.shape, dtype=np.float32)
    first = seeds * np.arange(DRAWS)[:, None]
    for place in range(scores.shape[1]):
        cells = (first + rows[..., place]).ravel()
        counts[..., place] = np.bincount(cells, minlength=DRAWS * seeds).reshape(DRAWS, seeds)
    return Resampled(scaled, counts)


def _wins(first: Array, second: Array) -> Array:
    """Return 1 where a score (n,) is above one of the second (m,), 0.5 where equal: (n, m)."""
    above = first[:, None] - second
    return (above > 0) + 0.5 * (above == 0)
