"""Scores of single test examples whose mean is a metric of a classifier, for paired tests.

A metric that is no mean of right and wrong answers is written as one by the jackknife (Efron 1982;
macro averages: see `macro_scores`): the metric plus the influence of each example on it. Influences
sum to 0, and their variance over examples is that of the metric, to first order. Classes without
examples count as 0, as in scikit-learn with `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.macro_scores import macro_scores

Array = NDArray[np.float64]


def correct(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int = 0) -> Array:
    """Return scores (examples,) whose mean is the accuracy: 1 for a right prediction, else 0."""
    return (predicted == labels).astype(np.float64)


def macro_f1_scores(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Array:
    """Return scores (examples,) whose mean is the macro F1.

    F1 of a class is 2 TP / (T + P) with T true and P predicted rows.
    """
    true, guessed = _one_hot(labels, classes), _one_hot(predicted, classes)
    return macro_scores(2 * true * guessed, true + guessed)


def weighted_f1_scores(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> Array:
    """Return scores (examples,) whose mean is the F1 weighted by the true rows of each class.

    A row also changes the weights: with share T / n, its influence is that on F1 times the share,
    plus ([true] - share) F1 / n.
    """
    true, guessed = _one_hot(labels, classes), _one_hot(predicted, classes)
    size, share = np.maximum((true + guessed).sum(0), 1), true.mean(0)
    f1 = 2 * (true * guessed).sum(0) / size
    influence = (2 * true * guessed - f1 * (true + guessed)) / size
    scores: Array = (share * (f1 + len(labels) * influence) + (true - share) * f1).sum(1)
    return scores


def macro_precision_scores(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> Array:
    """Return scores (examples,) whose mean is the macro precision."""
    true, guessed = _one_hot(labels, classes), _one_hot(predicted, classes)
    return macro_scores(true * guessed, guessed)


def macro_recall_scores(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> Array:
    """Return scores (examples,) whose mean is the macro recall."""
    true, guessed = _one_hot(labels, classes), _one_hot(predicted, classes)
    return macro_scores(true * guessed, true)


def _one_hot(values: NDArray[np.int64], classes: int) -> Array:
    return (values[:, None] == np.arange(classes)).astype(np.float64)


SCORES: Mapping[str, Callable[[NDArray[np.int64], NDArray[np.int64], int], Array]] = {
    "accuracy": correct,
    "macro_f1": macro_f1_scores,
    "weighted_f1": weighted_f1_scores,
    "macro_precision": macro_precision_scores,
    "macro_recall": macro_recall_scores,
}


def confusion(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count examples by true class (rows) and predicted class (columns)."""
    cells = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def scores_of_confusion(counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics of SCORES from a confusion matrix, for thousands of runs."""
    both, true, guessed = np.diag(counts), counts.sum(1), counts.sum(0)
    f1 = 2 * both / np.maximum(true + guessed, 1)
    rows = max(1, int(true.sum()))
    return {
        "accuracy": float(both.sum()) / rows,
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(f1 @ true) / rows,
        "macro_precision": float((both / np.maximum(guessed, 1)).mean()),
        "macro_recall": float((both / np.maximum(true, 1)).mean()),
    }
