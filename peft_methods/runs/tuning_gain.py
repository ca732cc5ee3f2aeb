"""What a tuned setting gains over the recipe's own, measured apart from the choice.

The best of several trials looks better than it is: the highest of eight noisy scores is high by
chance. So the gain is measured with other seeds than those of the trials, at full length. These
runs predict the same validation rows. A setting that was chosen because these rows happen to suit
it keeps that part of its luck. So the luck of the best trial is estimated and subtracted as far as
the new runs repeat it: times the slope of the regression of the new differences on those of the
trials, row by row. The luck of one of equally good settings is its whole advantage in the trials.
That of a far better one is less: at most what the best of so many equal settings is ahead by in
nine of ten searches.

The error rates are measured by `pytest tests/runs/test_tuning_gain.py -m simulation -s`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LUCKIEST = 0.9  # in so many searches among equal settings, the best trial is not luckier
LEVEL = 0.95  # of the lower end alone; both ends together form a 90 % interval


@dataclass(frozen=True)
class Gain:
    """Gain in the metric's unit (0..1 for a share), positive if better, with a 90 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the lower end, which holds with 95 % confidence, is above 0."""
        return self.low > 0


def gain_of(trial: Array, own: Array, candidate: Array, others: int) -> Gain:
    """Measure the gain of `candidate` over `own`: scores (seeds, rows), higher is better.

    `trial` (rows) is the candidate's score minus the own one's in the trials. It was chosen from
    `others` settings besides the own one. Seeds are not paired, rows are. The variance is that of a
    two-way layout with random seeds and rows (Gallas, "One-shot estimate of MRMC variance: AUC",
    2006), its degrees of freedom are Satterthwaite's (1946).
    """
    from scipy.stats import t as students

    seeds, rows = own.shape
    between = float(own.mean(1).var(ddof=1) + candidate.mean(1).var(ddof=1))  # of one seed each
    difference = candidate.mean(0) - own.mean(0)
    slope = _carried_over(trial, difference, between) * _luck(trial, between, others)
    left = difference - slope * trial
    span = max(own.max(), candidate.max()) - min(own.min(), candidate.min()) or 1.0
    # No less than Laplace's estimate for what no row has shown.
    of_rows = max(float(left.var(ddof=1)) if rows > 1 else 0.0, span**2 / (rows + 2)) / rows
    of_seeds = between / seeds + slope**2 * between
    noise = _noise(own) + _noise(candidate)  # contained in both
    variance = max(of_rows, of_seeds, of_rows + of_seeds - noise)
    freedom = variance**2 / (of_rows**2 / max(rows - 1, 1) + of_seeds**2 / (2 * (seeds - 1)))
    half = float(students.ppf(LEVEL, freedom) * variance**0.5)
    value = float(left.mean())
    return Gain(value, value - half, value + half)


def plain(gain: Gain | None) -> dict[str, float | None]:
    """Return a gain as JSON values for the record; None where it was not measured."""
    names = {"gain": "value", "low": "low", "high": "high"}
    return {name: getattr(gain, attribute, None) for name, attribute in names.items()}


def _carried_over(trial: Array, difference: Array, between: float) -> float:
    """Return the share, 0..1, of the trials' difference that is expected in the new one by chance.

    That is the slope of the regression of one mean on the other. A seed's luck, with the variance
    `between`, is part of the trials' mean alone.
    """
    total = float(trial.var()) + len(trial) * between
    if total == 0:
        return 0.0
    common = float(((trial - trial.mean()) * (difference - difference.mean())).mean())
    return min(max(common / total, 0.0), 1.0)


def _luck(trial: Array, between: float, others: int) -> float:
    """Return the share, 0..1, of the trials' mean difference that is luck of the choice."""
    from scipy.special import ndtri

    error = (float(trial.var()) / len(trial) + between) ** 0.5
    most = float(ndtri(LUCKIEST ** (1 / others)))
    advantage = float(trial.mean())
    return min(most * error / advantage, 1.0) if advantage > 0 else 1.0


def _noise(scores: Array) -> float:
    """Return the part of the mean's variance that comes from single answers."""
    seeds, rows = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    return float((rest**2).sum()) / ((seeds - 1) * max(rows - 1, 1)) / (seeds * rows)
