"""Predictions of a classifier: logits, classes and the mean loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassPredictions:
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

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays to store.

        Probabilities and predicted classes are for other readers: they follow from the logits.
        """
        return {
            "logits": self.logits,
            "probabilities": self.probabilities,
            "predicted": self.predicted,
            "labels": self.labels,
        }

    @classmethod
    def restore(cls, read: Callable[[str], NDArray[Any]]) -> ClassPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        logits, labels = read("logits"), read("labels")
        fits = (
            logits.ndim == 2
            and logits.dtype.kind == "f"
            and labels.shape == logits.shape[:1]
            and labels.dtype.kind in "iu"
        )
        if not fits or not ((labels >= 0) & (labels < logits.shape[1])).all():
            raise ValueError(
                "it must hold logits of shape (rows, classes) and labels of shape (rows,) that are "
                "class indices"
            )
        return cls(logits, labels)
