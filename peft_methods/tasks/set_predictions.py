"""Predictions of several labels a row: logits, probabilities and the threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF = 0.5  # the threshold that needs no data
THRESHOLD = "threshold"  # the array of a chosen threshold; absent without one


@dataclass(frozen=True)
class SetPredictions:
    """Logits (rows, labels) and true labels (rows, labels) of 0 and 1, in the data's order.

    `chosen` is the threshold that was chosen on validation predictions. None: these are such
    predictions themselves, or nothing was chosen.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    chosen: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether every logit is finite."""
        return bool(np.isfinite(self.logits).all())

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The logistic function of the logits."""
        from scipy.special import expit

        found: NDArray[np.float64] = expit(self.logits.astype(np.float64))
        return found

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Whether a row has a label, by the threshold 0.5."""
        return self.predicted_at(HALF)

    def predicted_at(self, threshold: float) -> NDArray[np.bool_]:
        """Whether a row has a label: its probability is at least the threshold."""
        return np.asarray(self.probabilities >= threshold)

    @property
    def threshold(self) -> float:
        """The chosen threshold; of validation predictions, the best one for themselves."""
        return (
            best_threshold(self.probabilities, self.labels)
            if self.chosen is None
            else (self.chosen)
        )

    def with_threshold_of(self, validation: SetPredictions) -> SetPredictions:
        """Return these predictions with the threshold that is best on validation predictions."""
        return replace(self, chosen=validation.threshold)

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy over rows and labels, nats."""
        logits = self.logits.astype(np.float64)
        return float((np.logaddexp(0, logits) - logits * self.labels).mean())

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays to store. Probabilities and predictions are for other readers."""
        chosen = {} if self.chosen is None else {THRESHOLD: np.asarray(self.chosen, np.float64)}
        return {
            "logits": self.logits,
            "probabilities": self.probabilities.astype(np.float32),
            "predicted": self.predicted,
            "labels": self.labels,
            **chosen,
        }

    @classmethod
    def restore(cls, read: Callable[[str], NDArray[Any]]) -> SetPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        logits, labels = read("logits"), read("labels")
        try:
            chosen = float(read(THRESHOLD))
        except KeyError:
            chosen = None
        fits = (
            logits.ndim == 2
            and logits.dtype.kind == "f"
            and labels.shape == logits.shape
            and labels.dtype.kind in "iub"
        )
        if not fits or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                "it must hold logits of shape (rows, labels) and as many labels that are 0 or 1"
            )
        return cls(logits, labels, chosen)


def best_threshold(probabilities: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Return the threshold for all labels that gives the highest micro F1.

    It lies in the middle between the lowest probability that counts and the next lower one. Of
    equally good ones it is the highest; without any label it is 0.5.
    """
    flat, true = probabilities.ravel(), np.asarray(labels).ravel()
    if not true.any():
        return HALF
    order = np.argsort(-flat, kind="stable")
    flat, both = flat[order], np.cumsum(true[order])
    last = np.flatnonzero(np.append(flat[:-1] > flat[1:], True))  # of equal probabilities
    f1 = 2 * both[last] / (last + 1 + both[-1])
    place = last[int(f1.argmax())]
    below = flat[place + 1] if place + 1 < len(flat) else 0.0
    middle = float((flat[place] + below) / 2)
    return middle if below < middle else float(flat[place])
