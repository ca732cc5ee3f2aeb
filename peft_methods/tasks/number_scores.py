"""Scores of single test examples whose mean is a metric of a regression, for paired tests.

As for classes (`class_scores`), a metric that is no mean is written as one by the infinitesimal
jackknife (Efron 1982): the metric plus the influence of each example on it. Influences sum to 0,
and their variance over examples is that of the metric, to first order. With several scores a row,
a metric is the mean of the scores' metrics.

A correlation with values that are all equal is 0 here: such predictions say nothing of the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def absolute_errors(predicted: Array, true: Array) -> Array:
    """Return the absolute errors (examples,). Their mean is the mean absolute error."""
    return np.abs(predicted - true)


def pearson_scores(predicted: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is Pearson's correlation.

    With standardised values a and b, an example's influence is a b - r (a² + b²) / 2 (Devlin,
    Gnanadesikan & Kettenring 1975).
    """
    if _is_constant(predicted) or _is_constant(true):
        return np.zeros(len(true))
    a, b = _standardised(predicted), _standardised(true)
    correlation = (a * b).mean()
    scores: Array = correlation + a * b - correlation / 2 * (a**2 + b**2)
    return scores


def spearman_scores(predicted: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is Spearman's correlation, with mean ranks for ties.

    It is Pearson's correlation of F(x) and G(y), the shares of examples below a value plus half of
    those equal to it. An example moves these shares for all examples, which adds to its influence
    (Croux & Dehon 2010; here for tied values, too).
    """
    if _is_constant(predicted) or _is_constant(true):
        return np.zeros(len(true))
    (first, shift_first), (second, shift_second) = _Shares.of(predicted), _Shares.of(true)
    cross = (first * second).mean()
    variances = (first**2).mean(), (second**2).mean()
    scale = np.sqrt(variances[0] * variances[1])
    moved = first * second + shift_first(second) + shift_second(first) - 3 * cross
    spread = [
        (own**2 + 2 * shift(own) - 3 * variance) / variance
        for own, shift, variance in (
            (first, shift_first, variances[0]),
            (second, shift_second, variances[1]),
        )
    ]
    correlation = cross / scale
    scores: Array = correlation + moved / scale - correlation / 2 * (spread[0] + spread[1])
    return scores


def r2_scores(predicted: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is R², 1 - MSE / V, with V the variance of the labels.

    An example with the error e and the distance d from the labels' mean has the influence
    MSE d² / V² - e² / V. Labels that are all equal give 0.
    """
    if _is_constant(true):
        return np.zeros(len(true))
    variance = true.var()
    squared = (predicted - true) ** 2
    error = squared.mean()
    scores: Array = (
        1 - squared / variance + error / variance * ((true - true.mean()) ** 2 / variance - 1)
    )
    return scores


SCORES: Mapping[str, Callable[[Array, Array], Array]] = {
    "spearman": spearman_scores,
    "pearson": pearson_scores,
    "mae": absolute_errors,
    "r2": r2_scores,
}


def example_scores(predicted: Array, true: Array, metric: str) -> Array:
    """Return scores (examples,) of arrays (examples, scores): means over the scores of a row."""
    each = [SCORES[metric](*pair) for pair in zip(predicted.T, true.T, strict=True)]
    scores: Array = np.mean(each, axis=0)
    return scores


def _is_constant(values: Array) -> bool:
    return bool(np.ptp(values) == 0)


def _standardised(values: Array) -> Array:
    centred = values - values.mean()
    centred /= np.abs(centred).max()  # squares of tiny differences would underflow
    result: Array = centred / np.sqrt((centred**2).mean())
    return result


class _Shares:
    """What an example moves: the shares below it or equal to it of all examples at or above it."""

    def __init__(self, values: Array) -> None:
        _, self._group, self._sizes = np.unique(values, return_inverse=True, return_counts=True)

    @classmethod
    def of(cls, values: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return each value's share below it and half of those equal to it, minus 1/2."""
        made = cls(values)
        below = np.cumsum(made._sizes) - made._sizes / 2
        shares: Array = (below / len(values))[made._group] - 0.5
        return shares, made.above

    def above(self, weights: Array) -> Array:
        """Return for each example the mean of weights: of those above it, and half of its equals.

        The share of an example at x is moved by an example at z by 1 if z < x and by 1/2 if z = x.
        """
        sums = np.bincount(self._group, weights, minlength=len(self._sizes))
        above = sums[::-1].cumsum()[::-1] - sums / 2
        means: Array = (above / len(weights))[self._group]
        return means
