"""Quality metrics compared with counts by hand and scikit-learn's conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from builders import TASK
from peft_methods.tasks.class_predictions import ClassPredictions


def predictions(predicted: list[int], labels: list[int], classes: int = 2) -> ClassPredictions:
    return ClassPredictions(
        np.eye(classes, dtype=np.float32)[predicted], np.asarray(labels, dtype=np.int64)
    )


def test_quality_matches_counts_by_hand() -> None:
    quality = TASK.evaluate(predictions([1, 1, 0, 1], [1, 0, 0, 1]), ("no", "yes"))
    assert quality.scores["accuracy"] == 0.75
    assert quality.details["confusion"] == [[1, 1], [0, 2]]
    assert quality.details["per_class"]["yes"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    )
    assert quality.scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_class_never_predicted_has_precision_zero_and_is_included() -> None:
    quality = TASK.evaluate(predictions([0, 0, 0], [0, 1, 2], 3), ("a", "b", "c"))
    assert quality.details["per_class"]["b"]["precision"] == 0
    assert quality.scores["macro_recall"] == pytest.approx(1 / 3)
    assert len(quality.details["confusion"]) == 3


def test_loss_is_cross_entropy_and_finite_for_large_logits() -> None:
    assert predictions([0], [0]).loss == pytest.approx(-math.log(math.e / (math.e + 1)))
    huge = ClassPredictions(np.asarray([[1e4, -1e4]], dtype=np.float32), np.asarray([1]))
    assert huge.loss == pytest.approx(2e4)


@given(
    arrays(np.float32, (7, 3), elements=st.floats(-50, 50, width=32)),
    st.lists(st.integers(0, 2), min_size=7, max_size=7),
)
def test_probabilities_and_confusion_matrix_sum_correctly(
    logits: np.ndarray, labels: list[int]
) -> None:
    given_ = ClassPredictions(logits, np.asarray(labels))
    assert np.allclose(given_.probabilities.sum(axis=1), 1, atol=1e-5)
    quality = TASK.evaluate(given_, ("a", "b", "c"))
    assert sum(map(sum, quality.details["confusion"])) == 7
    assert quality.scores["accuracy"] == pytest.approx(
        sum(quality.details["confusion"][i][i] for i in range(3)) / 7
    )
    expected = {metric.name: quality.scores[metric.name] for metric in TASK.metrics}
    assert TASK.scores(given_) == pytest.approx(expected)
