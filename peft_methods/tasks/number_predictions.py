"""Predictions of a regression: one or more numbers a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NumberPredictions:
    """Outputs (rows, scores) and true labels (rows,) or (rows, scores), in the data's order.

    Both are in the labels' own unit.
    """

    outputs: NDArray[np.float32]
    labels: NDArray[np.float64]

    @property
    def is_finite(self) -> bool:
        """Whether every output is finite."""
        return bool(np.isfinite(self.outputs).all())

    @property
    def predicted(self) -> NDArray[np.float64]:
        """The outputs in 64 bits, of shape (rows, scores)."""
        return self.outputs.astype(np.float64)

    @property
    def true(self) -> NDArray[np.float64]:
        """The labels, of shape (rows, scores)."""
        return self.labels.astype(np.float64).reshape(len(self.labels), -1)

    @property
    def loss(self) -> float:
        """Mean squared error over rows and scores, in the squared unit of the labels."""
        return float(((self.predicted - self.true) ** 2).mean())

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays to store."""
        return {"outputs": self.outputs, "labels": self.labels}

    @classmethod
    def restore(cls, read: Callable[[str], NDArray[Any]]) -> NumberPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        outputs, labels = read("outputs"), read("labels")
        fits = (
            outputs.ndim == 2
            and outputs.dtype.kind == "f"
            and labels.dtype.kind in "fiu"
            and labels.shape in ((len(outputs), outputs.shape[1]), (len(outputs),))
            and (labels.ndim == 2 or outputs.shape[1] == 1)
        )
        if not fits or not np.isfinite(labels).all():
            raise ValueError(
                "it must hold outputs of shape (rows, scores) and finite labels of shape (rows,) "
                "or (rows, scores)"
            )
        return cls(outputs, labels)
