"""Quality of predictions: accuracy, precision, recall, F1 and confusion matrix (scikit-learn)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Logits (rows, classes) and true labels (rows,), in the order of the data."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def is_finite(self) -> bool:
        """Whether every logit is finite.

        If a model overflowed and its logits are nan, argmax returns the first class for every row.
        """
        return bool(np.isfinite(self.logits).all())

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the highest logit in each row."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits."""
        from scipy.special import softmax

        return softmax(self.logits.astype(np.float64), axis=1).astype(np.float32)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        from scipy.special import log_softmax

        chosen = log_softmax(self.logits.astype(np.float64), axis=1)[
            np.arange(len(self.labels)), self.labels
        ]
        return float(-chosen.mean())


@dataclass(frozen=True)
class Quality:
    """Quality metrics in 0..1. `per_class`: label name to precision, recall, F1 and support."""

    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]


def evaluate(predictions: Predictions, label_names: tuple[str, ...]) -> Quality:
    """Compute the quality of predictions.

    A class that is never predicted has precision 0 (scikit-learn's `zero_division=0`).
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    truth, predicted, classes = predictions.labels, predictions.predicted, range(len(label_names))

    def scores(average: str | None) -> Any:
        return precision_recall_fscore_support(
            truth, predicted, labels=classes, average=average, zero_division=0
        )

    macro, weighted, each = scores("macro"), scores("weighted"), scores(None)
    names = ("precision", "recall", "f1", "support")
    return Quality(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_precision=float(macro[0]),
        macro_recall=float(macro[1]),
        macro_f1=float(macro[2]),
        weighted_precision=float(weighted[0]),
        weighted_recall=float(weighted[1]),
        weighted_f1=float(weighted[2]),
        per_class={
            name: {score: float(values[i]) for score, values in zip(names, each, strict=True)}
            for i, name in enumerate(label_names)
        },
        confusion=confusion_matrix(truth, predicted, labels=classes).tolist(),
    )
