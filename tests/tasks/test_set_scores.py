"""Metrics of several labels: scikit-learn's values, scores whose mean they are, thresholds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.tasks.registry import TASKS
from peft_methods.tasks.set_predictions import SetPredictions, best_threshold

MULTILABEL = TASKS["multilabel"]
NAMES = ("a", "b", "c")
METRICS = [metric.name for metric in MULTILABEL.metrics]


def drawn(rows: int, seed: int = 0) -> SetPredictions:
    rng = np.random.default_rng(seed)
    true = (rng.random((rows, 3)) < (0.5, 0.2, 0.1)).astype(np.int64)
    logits = 1.5 * true - 1.2 + rng.standard_normal((rows, 3))
    return SetPredictions(logits.round(1).astype(np.float32), true, 0.31)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (9, 3), elements=st.integers(-3, 3).map(float)),
    arrays(np.int64, (9, 3), elements=st.integers(0, 1)),
    st.floats(0.05, 0.95),
)
def test_example_scores_average_to_every_metric_with_any_ties(
    logits: np.ndarray, true: np.ndarray, threshold: float
) -> None:
    predictions = SetPredictions(logits, true, threshold)
    found = MULTILABEL.evaluate(predictions, NAMES).scores
    for name in METRICS:
        scores = MULTILABEL.example_scores(predictions, name)
        assert scores.mean() == pytest.approx(found[name], rel=1e-9, abs=1e-9)


def test_metrics_are_those_of_scikit_learn() -> None:
    made = drawn(200)
    probabilities = 1 / (1 + np.exp(-made.logits.astype(np.float64)))
    half, chosen = probabilities >= 0.5, probabilities >= 0.31
    assert MULTILABEL.evaluate(made, NAMES).scores == pytest.approx(
        {
            "micro_f1": metrics.f1_score(made.labels, half, average="micro"),
            "macro_f1": metrics.f1_score(made.labels, half, average="macro"),
            "subset_accuracy": metrics.accuracy_score(made.labels, half),
            "average_precision": metrics.average_precision_score(made.labels, probabilities),
            "micro_f1_tuned": metrics.f1_score(made.labels, chosen, average="micro"),
        },
        rel=1e-12,
    )


def test_labels_that_no_row_has_are_left_out_of_average_precision() -> None:
    made = drawn(100)
    without = SetPredictions(made.logits, made.labels * (1, 1, 0), 0.5)
    found = MULTILABEL.evaluate(without, NAMES)
    two = metrics.average_precision_score(made.labels[:, :2], made.probabilities[:, :2])
    assert found.scores["average_precision"] == pytest.approx(two)
    assert found.details["per_label"]["c"]["average_precision"] is None
    (view,) = MULTILABEL.views([found.plain()])
    assert view.note.endswith("Average precision leaves out 1 label that no test row has.")


@pytest.mark.parametrize("name", METRICS)
def test_the_spread_of_example_scores_is_that_of_a_bootstrap(name: str) -> None:
    made = drawn(400)
    scores = MULTILABEL.example_scores(made, name)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 400, 400) for _ in range(400)]
    values = [
        MULTILABEL.example_scores(
            SetPredictions(made.logits[rows], made.labels[rows], made.chosen), name
        ).mean()
        for rows in draws
    ]
    error = scores.std(ddof=1) / np.sqrt(400)
    assert error == pytest.approx(np.std(values, ddof=1), rel=0.15)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (6, 2), elements=st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.8, 1.0])),
    arrays(np.int64, (6, 2), elements=st.integers(0, 1)),
)
def test_no_threshold_has_a_higher_micro_f1(probabilities: np.ndarray, true: np.ndarray) -> None:
    values = np.unique(probabilities)
    tried = [*values, *((a + b) / 2 for a, b in pairwise(values)), 1.1]

    def f1(threshold: float) -> float:
        return float(
            metrics.f1_score(true.ravel(), probabilities.ravel() >= threshold, zero_division=0)
        )

    best = best_threshold(probabilities, true)
    assert f1(best) == pytest.approx(max(map(f1, tried)) if true.any() else f1(0.5))
    assert 0 < best <= 1


def test_the_threshold_of_test_predictions_is_chosen_on_validation_rows() -> None:
    validation = SetPredictions(drawn(200, 1).logits - 2, drawn(200, 1).labels)
    test = drawn(300, 2)
    tuned = MULTILABEL.tuned(SetPredictions(test.logits, test.labels), validation)
    assert tuned.threshold == best_threshold(validation.probabilities, validation.labels)
    assert tuned.threshold != best_threshold(test.probabilities, test.labels)
    again = SetPredictions.restore(lambda name: tuned.arrays()[name])
    assert again.threshold == tuned.threshold
    alone = SetPredictions.restore(lambda name: validation.arrays()[name])
    assert alone.chosen is None


def test_the_trivial_baseline_has_the_shares_of_the_labels_as_average_precision() -> None:
    made = {
        name: drawn(rows, rows) for name, rows in (("train", 90), ("validation", 50), ("test", 60))
    }
    splits = {
        name: LabelledTexts([""] * len(one.labels), [tuple(row) for row in one.labels.tolist()])
        for name, one in made.items()
    }
    found = MULTILABEL.trivial_baseline(splits, NAMES)
    assert found["average_precision"] == pytest.approx(made["test"].labels.mean())
    frequent = np.tile(made["train"].labels.mean(0) >= 0.5, (60, 1))
    micro = metrics.f1_score(made["test"].labels, frequent, average="micro", zero_division=0)
    assert found["micro_f1"] == pytest.approx(micro)
    assert found["micro_f1_tuned"] > 0
