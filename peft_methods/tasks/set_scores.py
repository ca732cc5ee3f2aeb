"""Scores of single test examples whose mean is a metric of several labels, for paired tests.

As for classes (`class_scores`), a metric that is no mean is written as one by the infinitesimal
jackknife (Efron 1982), the metric plus the influence of each example on it; for macro F1 see
`macro_scores`. A threshold that was chosen on other rows is taken as fixed. `true` and `guessed`
are arrays (examples, labels) of 0 and 1, `scores` are probabilities or logits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.macro_scores import macro_scores

Array = NDArray[np.float64]


def micro_f1_scores(guessed: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is the micro F1, 0 without any label.

    F1 is 2 TP / (T + P) over all labels and examples. An example adds to the three counts.
    """
    both, size = (true * guessed).sum(1), (true + guessed).sum(1)
    total = size.sum()
    if not total:
        return np.zeros(len(true))
    f1 = 2 * both.sum() / total
    scores: Array = f1 + len(true) * (2 * both - f1 * size) / total
    return scores


def macro_f1_scores(guessed: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is the macro F1. Absent labels count as 0."""
    return macro_scores(2 * true * guessed, true + guessed)


def subset_scores(guessed: Array, true: Array) -> Array:
    """Return 1 for examples whose labels are all right, else 0. The mean is subset accuracy."""
    scores: Array = (guessed == true).all(axis=1).astype(np.float64)
    return scores


def average_precision_scores(probabilities: Array, true: Array) -> Array:
    """Return scores (examples,) whose mean is the average precision, the mean over labels.

    Labels that no example has are left out; without any other, the scores are 0.
    """
    has = np.flatnonzero(true.any(axis=0))
    if not len(has):
        return np.zeros(len(true))
    each = [_average_precision(probabilities[:, label], true[:, label]) for label in has]
    scores: Array = np.mean(each, axis=0)
    return scores


def _average_precision(values: Array, true: Array) -> Array:
    """Scores of the average precision of one label.

    It is the mean, over the examples that have the label, of the precision π among the examples
    with at least their value. An example with the value s and the label y adds y π(s) to it and
    changes π for examples with values of at most s: by (y - π) / N, with N examples counted there.
    """
    rows, positive = len(true), true.sum()
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(group, true, minlength=len(sizes))
    above, found = np.cumsum(sizes), np.cumsum(hits)  # by group, the highest value first
    precision = found / above

    def of_lower(weights: Array) -> Array:
        """Sum over the examples that have the label and at most the value of each example."""
        sums = hits * weights
        result: Array = sums[::-1].cumsum()[::-1][group]
        return result

    average = (true * precision[group]).sum() / positive
    moved = true * precision[group] + true * of_lower(1 / above) - of_lower(precision / above)
    scores: Array = average + rows * (moved - average * true) / positive
    return scores
