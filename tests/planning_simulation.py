"""Jobs whose undecided comparisons are planned, and what the planned seeds and rows then show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm

from peft_methods.analysis.pairs import PairwiseComparison, best_first, compare_pairs
from peft_methods.analysis.planning import SEEDS, TIMES_ROWS, Plan, plan
from peft_methods.analysis.samples import Sample, sample_of

START = 3  # seeds
Right = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Job:
    """Methods whose true accuracies vary `between` (0..1) about 80 %, and their spread in points.

    See `simulation.Setting` for the answers.
    """

    methods: int
    spread: float
    between: float
    rows: int = 1000
    margin: float = 0.01

    def __str__(self) -> str:
        return (
            f"{self.methods} methods, {100 * self.between:g} points apart, spread {self.spread:g}, "
            f"{self.rows} rows, margin {100 * self.margin:g}"
        )


def planned(job: Job, repetitions: int, seed: int = 11) -> Iterator[tuple[Plan, bool]]:
    """Yield the plans of all undecided comparisons with the best, and whether they decide."""
    rng = np.random.default_rng(seed)
    for _ in range(repetitions):
        right = _answers(job, rng)
        samples = _samples(right, START, job.rows)
        order = best_first(samples, 1)
        pairs = compare_pairs(samples, order, job.margin)
        alike = sum(not pair.is_separable for pair in pairs)
        for pair in pairs:
            if pair.first == order[0] and pair.verdict == "undecided":
                for one in plan(samples, pair.first, pair.second, job.margin, alike):
                    after = compare_pairs(_samples(right, one.seeds, one.rows), order, job.margin)
                    yield one, _verdict(after, pair) != "undecided"


def _verdict(pairs: tuple[PairwiseComparison, ...], of: PairwiseComparison) -> str:
    return next(one.verdict for one in pairs if (one.first, one.second) == (of.first, of.second))


def _answers(job: Job, rng: np.random.Generator) -> Right:
    """Whether each answer is right, of all seeds and rows that a plan may name."""
    rows = job.rows * TIMES_ROWS[-1]
    shared = rng.standard_normal(rows, dtype=np.float32)
    sigma = job.spread / 100 / norm.pdf(ndtri(0.8))
    found = {}
    for name in map(str, range(job.methods)):
        accuracy = np.clip(0.8 + job.between * rng.standard_normal(), 0.5, 0.98)
        level = ndtri(accuracy) * np.sqrt(1 + sigma**2)
        drawn = level + sigma * rng.standard_normal((SEEDS[-1], 1), dtype=np.float32)
        own = rng.standard_normal(rows, dtype=np.float32)
        chance = rng.standard_normal((SEEDS[-1], rows), dtype=np.float32)
        found[name] = np.sqrt(0.45) * shared + np.sqrt(0.2) * own + np.sqrt(0.35) * chance < drawn
    return found


def _samples(right: Right, seeds: int, rows: int) -> dict[str, Sample]:
    return {name: sample_of(one[:seeds, :rows].astype(np.float64)) for name, one in right.items()}
