"""The noise of a metric's mean between seeds and between sessions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from peft_methods.analysis.noise import (
    KNOWN,
    PRIOR_FREEDOM,
    Assumed,
    Figures,
    drift,
    estimate,
    explained,
    larger,
    seed_variance,
    variance_of_change,
)

RNG = np.random.default_rng(5)


def test_one_seed_everywhere_has_the_assumed_variance_or_none() -> None:
    one = np.asarray([0.1])
    assert seed_variance([one, one], [[one]], None) is None
    found = seed_variance([one, one], [[one]], 0.03)
    assert found is not None
    assert float(found.variance) == pytest.approx(0.0009)


def test_seed_variance_of_equal_methods_is_near_the_pooled_one() -> None:
    groups = RNG.normal(0, 0.02, (40, 2, 3))
    found = seed_variance(list(groups[0]), [list(one) for one in groups[1:]], None)
    assert found is not None
    assert 0.015 < float(found.variance) ** 0.5 < 0.025
    assert float(found.freedom) > 4


def test_drift_of_one_session_is_the_assumed_one() -> None:
    found = drift([(np.zeros(3),), (np.zeros(3),)], Assumed(0.05, None, residual=0.03))
    assert float(found.common.variance) == pytest.approx(0.0025)
    assert float(found.residual.variance) == pytest.approx(0.0009)
    assert float(found.common.freedom) == KNOWN
    assert found.factor == 2


def test_measured_drift_is_moderated_by_the_assumed_one() -> None:
    shifts = (0.0, 0.1, -0.1)  # what both methods have in common
    found = drift([[np.full(3, shift) for shift in shifts]] * 2, Assumed(0.05, None))
    expected = (PRIOR_FREEDOM * 0.0025 + 2 * 0.01) / (PRIOR_FREEDOM + 2)
    assert float(found.common.variance) == pytest.approx(expected)
    assert float(found.residual.variance) == pytest.approx(0)
    assert found.factor == pytest.approx(4 / 3)


def test_change_of_one_method_in_a_session_is_residual_and_not_drift() -> None:
    still, moving = [np.zeros(1)] * 3, [np.zeros(1), np.ones(1), -np.ones(1)]
    found = drift([still, moving], Assumed(0.0, None))
    assert float(found.residual.variance) == pytest.approx(0.5)
    assert float(found.common.variance) == pytest.approx(0)


def test_repetitions_are_computed_as_each_alone() -> None:
    before, now = RNG.normal(0, 0.1, (4, 2, 5, 3)), RNG.normal(0, 0.1, (5, 3))
    baseline, assumed = [list(one) for one in before], Assumed(0.05, None)
    together = variance_of_change(
        Figures(tuple(baseline[0]), now), estimate(np.full(5, 0.01)), drift(baseline, assumed)
    )
    for place in range(5):
        alone = [[session[place] for session in one] for one in baseline]
        one = variance_of_change(
            Figures(tuple(alone[0]), now[place]), estimate(0.01), drift(alone, assumed)
        )
        assert float(one.variance) == pytest.approx(float(together.variance[place]))
        assert float(one.freedom) == pytest.approx(float(together.freedom[place]))


def test_larger_variance_keeps_its_degrees_of_freedom() -> None:
    found = larger(estimate(np.asarray([1.0, 4.0]), 5), estimate(np.asarray([2.0, 3.0]), 7))
    assert found.variance.tolist() == [2, 4]
    assert found.freedom.tolist() == [7, 5]


def test_chance_explains_students_quantile() -> None:
    assert float(explained(estimate(4.0, 3), 0.01)) == pytest.approx(2 * stats.t.ppf(0.99, 3))
    assert float(explained(estimate(0.0), 0.0)) == 0
    assert float(explained(estimate(1.0), 0.0)) == np.inf


@pytest.mark.parametrize("methods", [1, 2])
def test_seed_variance_has_no_more_degrees_of_freedom_than_the_runs(methods: int) -> None:
    """Two runs a method have one each, however alike the methods are."""
    groups = [[np.asarray([0.0, 0.02 + place / 1000])] for place in range(methods)]
    found = seed_variance(groups[0], groups[1:], None)
    assert found is not None
    assert float(found.freedom) <= methods
