"""Shares of the noise: unbiased, with intervals that hold, and never below 0."""

from __future__ import annotations

import numpy as np
import pytest

from peft_methods.analysis.samples import Array, sample_of
from peft_methods.analysis.variance_parts import added_parts, parts_of, shares_of

# Standard deviations of the components: seeds, rows, single answers.
SETTINGS = [(0.02, 0.3, 0.3), (0.0, 0.3, 0.2), (0.05, 0.1, 0.4)]


def drawn(components: tuple[float, float, float], of: int = 4000, s: int = 3) -> Array:
    """Return scores (of, s seeds, 60 rows) of repetitions with these components."""
    (seeds, rows, answers), n, rng = components, 60, np.random.default_rng(7)
    return np.asarray(
        0.8
        + seeds * rng.standard_normal((of, s, 1))
        + rows * rng.standard_normal((of, 1, n))
        + answers * rng.standard_normal((of, s, n))
    )


def expected(components: tuple[float, float, float]) -> Array:
    """Return the true parts of the variance of a mean over 3 seeds and 60 rows."""
    return np.square(components) / (3, 60, 180)


@pytest.mark.parametrize("components", SETTINGS)
def test_estimates_are_unbiased(components: tuple[float, float, float]) -> None:
    found = parts_of(sample_of(drawn(components)))
    for estimates, truth in zip(
        (found.seeds.variance, found.rows, found.answers), expected(components), strict=True
    ):
        error = estimates.std() / np.sqrt(len(estimates))
        assert abs(estimates.mean() - truth) < 3.5 * error


@pytest.mark.parametrize("components", SETTINGS)
def test_shares_of_many_sessions_together_are_the_true_ones(
    components: tuple[float, float, float],
) -> None:
    """Added over repetitions, as over methods, the shares are those of the components."""
    each = [parts_of(sample_of(scores)) for scores in drawn(components)]
    shares = shares_of(added_parts(each), methods=len(each))
    truth = expected(components)
    got = [share.estimate or 0 for share in (shares.seeds, shares.rows, shares.answers)]
    assert got == pytest.approx(truth / truth.sum(), abs=0.03)
    assert shares.deviation == pytest.approx(np.sqrt(truth.sum()), rel=0.03)


def test_binary_answers_are_split_without_bias() -> None:
    """Right and wrong answers: rows differ in difficulty and seeds in quality.

    The true components are those of the probabilities; what is left of a coin is in the answers.
    """
    rng = np.random.default_rng(3)
    chance = np.clip(
        0.7 + 0.05 * rng.standard_normal((6000, 3, 1)) + 0.15 * rng.uniform(-1, 1, (6000, 1, 80)),
        0,
        1,
    )
    found = parts_of(sample_of((rng.random(chance.shape) < chance).astype(float)))
    assert found.seeds.variance.mean() == pytest.approx(0.05**2 / 3, rel=0.08)
    assert found.rows.mean() == pytest.approx(0.15**2 / 3 / 80, rel=0.08)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_interval_of_the_seeds_holds(seeds: int) -> None:
    found = parts_of(sample_of(drawn((0.03, 0.3, 0.3), 2000, seeds)))
    low, high = found.seeds.interval
    truth = 0.03**2 / seeds
    assert 0.93 < ((low <= truth) & (truth <= high)).mean() < 0.985


def test_exact_parts_of_scores_by_hand() -> None:
    """Two seeds and two rows, 0.5 apart each: both means have the variance 0.125, and no rest."""
    found = parts_of(sample_of(np.asarray([[1.0, 0.0], [2.0, 1.0]]) / 2))
    assert float(found.answers) == pytest.approx(0)
    assert float(found.seeds.variance) == pytest.approx(0.125 / 2)
    assert float(found.rows) == pytest.approx(0.125 / 2)


def test_a_part_below_zero_is_an_upper_limit_only() -> None:
    rng = np.random.default_rng(0)
    scores = np.stack([rng.permutation(np.tile([0.0, 1.0], 50)) for _ in range(3)])
    parts = parts_of(sample_of(scores))  # every seed has the same mean
    assert float(parts.seeds.variance) < 0
    shares = shares_of(parts, {"dropout": parts.seeds})
    for share in (shares.seeds, shares.parts["dropout"]):
        assert (share.estimate, share.low) == (None, 0)
        assert 0 <= share.high <= 1
    known = [share.estimate for share in (shares.rows, shares.answers) if share.estimate]
    assert sum(known) == pytest.approx(1)


def test_identical_seeds_leave_the_rows_alone() -> None:
    """With vary = [] all seeds agree: nothing is left but the test rows."""
    scores = np.tile(np.arange(10) < 7, (3, 1)).astype(float)
    shares = shares_of(parts_of(sample_of(scores)))
    assert shares.rows.estimate == pytest.approx(1)
    assert shares.seeds.estimate is None
    assert shares.seeds.high == pytest.approx(0)
