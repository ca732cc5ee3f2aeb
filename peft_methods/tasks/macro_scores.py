"""Scores of single examples whose mean is a macro average, a mean of ratios over labels.

They are the metric plus the jackknife's influence of each example on it (Efron 1982): how much the
metric is lower without the example, times the number of the others. For a label that few examples
have, the infinitesimal jackknife is far too small: a single example that was found gives an F1 of 1
and has no infinitesimal influence on it, but without the example the F1 is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def macro_scores(above: Array, below: Array) -> Array:
    """Return scores (examples,) whose mean is the mean over labels of sums A / B.

    `above` and `below` are what each example adds to A and B, (examples, labels). A ratio without
    any example is 0.
    """
    numerator, denominator = above.sum(0), below.sum(0)
    ratio = numerator / np.maximum(denominator, 1)
    without = (numerator - above) / np.maximum(denominator - below, 1)
    influence = (len(above) - 1) * (without.mean(0) - without)
    scores: Array = ratio.mean() + influence.mean(1)
    return scores
