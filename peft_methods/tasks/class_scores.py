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
    """Return the metrics of SCORES from a confusion matrix, for thousands of runs.

    With few classes, Python's own numbers are several times as fast as arrays.
    """
    both, true, guessed = (of.tolist() for of in (counts.diagonal(), counts.sum(1), counts.sum(0)))
    f1 = [2 * b / max(t + g, 1) for b, t, g in zip(both, true, guessed, strict=True)]
    precision = [b / max(g, 1) for b, g in zip(both, guessed, strict=True)]
    recall = [b / max(t, 1) for b, t in zip(both, true, strict=True)]
    rows, classes = max(1, sum(true)), len(both)
    return {
        "accuracy": sum(both) / rows,
        "macro_f1": sum(f1) / classes,
        "weighted_f1": sum(score * t for score, t in zip(f1, true, strict=True)) / rows,
        "macro_precision": sum(precision) / classes,
        "macro_recall": sum(recall) / classes,
    }
