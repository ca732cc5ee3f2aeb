"""Metrics of a regression: SciPy's and scikit-learn's values, and scores whose mean they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics

from peft_methods.tasks.number_predictions import NumberPredictions
from peft_methods.tasks.number_scores import SCORES
from peft_methods.tasks.registry import TASKS

REGRESSION = TASKS["regression"]
BOOTSTRAPS = 400


def drawn(rows: int, seed: int = 0, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and true scores in steps of a half, with many ties, as of STS-B."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 11, rows) / 2
    return true * 0.7 + noise * rng.standard_normal(rows), true


def of(predicted: np.ndarray, true: np.ndarray) -> NumberPredictions:
    return NumberPredictions(
        np.asarray(predicted, np.float32).reshape(len(true), -1), np.asarray(true, np.float64)
    )


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, 12, elements=st.floats(-8, 8, width=16)),
    arrays(np.float64, 12, elements=st.integers(0, 5).map(float)),
)
def test_example_scores_average_to_every_metric_with_any_ties(
    predicted: np.ndarray, true: np.ndarray
) -> None:
    predictions = of(predicted, true)
    found = REGRESSION.evaluate(predictions, ("score",)).scores
    for metric in REGRESSION.metrics:
        scores = REGRESSION.example_scores(predictions, metric.name)
        assert scores.mean() == pytest.approx(found[metric.name], rel=1e-6, abs=1e-6)
        assert np.isfinite(scores).all()


def test_metrics_are_those_of_scipy_and_scikit_learn() -> None:
    predicted, true = drawn(200)
    found = REGRESSION.evaluate(of(predicted, true), ("score",)).scores
    outputs = predicted.astype(np.float32).astype(np.float64)
    assert found == {
        "spearman": stats.spearmanr(outputs, true).statistic,
        "pearson": stats.pearsonr(outputs, true).statistic,
        "mae": metrics.mean_absolute_error(true, outputs),
        "r2": metrics.r2_score(true, outputs),
    }


def test_metrics_of_several_scores_are_means_over_them() -> None:
    pairs = [drawn(50, seed) for seed in range(3)]
    both = of(*(np.stack(parts, axis=1) for parts in zip(*pairs, strict=True)))
    quality = REGRESSION.evaluate(both, ("a", "b", "c"))
    for name, value in quality.scores.items():
        each = [REGRESSION.evaluate(of(*pair), ("x",)).scores[name] for pair in pairs]
        assert value == pytest.approx(np.mean(each))
        assert REGRESSION.example_scores(both, name).mean() == pytest.approx(value)
    views = REGRESSION.views([quality.plain()])
    assert [view.name for view in views] == ["scores", "predicted", "predicted-2", "predicted-3"]


@pytest.mark.parametrize("name", list(SCORES))
def test_the_spread_of_example_scores_is_that_of_a_bootstrap(name: str) -> None:
    predicted, true = drawn(400)
    scores = SCORES[name](predicted, true)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 400, 400) for _ in range(BOOTSTRAPS)]
    values = [SCORES[name](predicted[rows], true[rows]).mean() for rows in draws]
    error = scores.std(ddof=1) / np.sqrt(400)
    assert error == pytest.approx(np.std(values, ddof=1), rel=0.15)


@pytest.mark.parametrize("name", list(SCORES))
def test_influence_is_what_one_more_copy_of_an_example_changes(name: str) -> None:
    predicted, true = drawn(3000, noise=0.3)
    scores = SCORES[name](predicted, true)
    for row in (0, 7, 1500):
        rows = np.append(np.arange(3000), row)
        moved = SCORES[name](predicted[rows], true[rows]).mean() - scores.mean()
        assert 3001 * moved == pytest.approx(scores[row] - scores.mean(), abs=0.02)


def test_predictions_that_are_all_equal_have_correlations_of_0() -> None:
    _, true = drawn(40)
    quality = REGRESSION.evaluate(of(np.full(40, 0.1), true), ("score",))
    assert (quality.scores["spearman"], quality.scores["pearson"]) == (0.0, 0.0)
    assert all(np.isfinite(list(quality.scores.values())))
    (view,) = REGRESSION.views([quality.plain()])
    assert "All predictions of a run are equal: its correlations count as 0." in view.description


def test_a_record_keeps_few_points_of_many_rows() -> None:
    quality = REGRESSION.evaluate(of(*drawn(20_000)), ("score",)).plain()
    (view,) = REGRESSION.views([quality] * 3)
    assert len(quality["per_score"]["score"]["true"]) == 400
    assert len(view.points) == 600
    assert view.note.startswith("600 of 60,000 predictions")
