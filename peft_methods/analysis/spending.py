"""Significance levels of repeated looks at the same comparison, as seeds are added.

Who looks again after each further seed, and stops at the first significant difference, has several
chances of a false alarm. So each look has a level of its own, which together spend 5 %: Lan &
DeMets, "Discrete sequential boundaries for clinical trials" (1983), with their function that
resembles Pocock's boundary, alpha * log(1 + (e - 1) t). t is the share of the seeds used so far in
the most that are allowed.

The levels are those of a normal statistic with independent increments, and are applied to the p of
Student's t ("significance level approach", Jennison & Turnbull, "Group Sequential Methods", 2000).
The test examples are the same at every look, so successive differences have more in common than
that: the levels are on the safe side.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

WIDTH, STEP = 9.0, 0.02  # grid of the statistic, in standard deviations of the last look


@cache
def levels(first: int, most: int, alpha: float) -> tuple[float, ...]:
    """Return the two-sided level of each look: with `first` seeds, one more, ..., `most` seeds.

    All looks together have a false alarm rate of `alpha`. With one look it is its level.
    """
    grid = np.arange(-WIDTH, WIDTH + STEP / 2, STEP)
    times = [seeds / most for seeds in range(first, most + 1)]
    spent, found, last = 0.0, [], 0.0
    density: np.ndarray | None = None  # of the statistic, where no look has stopped yet
    for time in times:
        increment = _normal(grid, time - last)
        density = increment if density is None else np.convolve(density, increment, "same") * STEP
        budget = alpha * math.log(1 + (math.e - 1) * time)
        bound = _bound(grid, density, budget - spent)
        found.append(math.erfc(bound / math.sqrt(2 * time)))
        density = np.where(np.abs(grid) < bound, density, 0.0)
        spent, last = budget, time
    return tuple(found)


def _normal(grid: np.ndarray, variance: float) -> np.ndarray:
    return np.asarray(np.exp(-(grid**2) / 2 / variance) / math.sqrt(2 * math.pi * variance))


def _bound(grid: np.ndarray, density: np.ndarray, probability: float) -> float:
    """Return the bound that a symmetric density exceeds, on both sides, with this probability."""
    above = 2 * np.cumsum(density[::-1] * STEP)[::-1]  # from each point of the grid on
    half = grid >= 0
    return float(np.interp(-probability, -above[half], grid[half] - STEP / 2))
