"""The summary over several data sets, against values computed in other ways.

The coverage of the documentation: `pytest tests/analysis/test_data_sets.py -m simulation -s`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, trim_mean

from builders import make_comparison
from curve_builders import make_curve
from data_set_builders import THREE, make_recipes
from peft_methods.analysis.data_sets import (
    DataSetSummary,
    Excluded,
    iqm_interval,
    summarize_data_sets,
)
from peft_methods.analysis.resampling import Resampled, improvement, iqm, resampled
from peft_methods.api import PrintableComparison


@pytest.fixture(scope="module")
def comparison() -> PrintableComparison:
    return make_recipes()


@pytest.fixture(scope="module")
def summary(comparison: PrintableComparison) -> DataSetSummary:
    found = summarize_data_sets(comparison)
    assert found is not None
    return found


def accuracies(comparison: PrintableComparison, method: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for record in comparison.records:
        if record.method_name == method:
            found.setdefault(record.recipe_name, []).append(record.metrics["accuracy"] or 0.0)
    return found


def test_interquartile_mean_is_that_of_scipy_over_all_normalised_runs(
    comparison: PrintableComparison, summary: DataSetSummary
) -> None:
    for method, one in summary.methods.items():
        values = [value for of in accuracies(comparison, method).values() for value in of]
        normalised = (np.asarray(values) - 0.5) / (1 - 0.5)
        assert one.iqm == pytest.approx(trim_mean(normalised, 0.25))
        assert one.raw_mean == pytest.approx(fmean(values))
        assert one.interval is not None
        assert one.interval[0] <= one.iqm <= one.interval[1]
    means = [one.iqm for one in summary.methods.values()]
    assert means == sorted(means, reverse=True)


def test_probability_of_improvement_is_the_mean_of_mann_whitneys_u(
    comparison: PrintableComparison, summary: DataSetSummary
) -> None:
    for first, second in product(summary.methods, repeat=2):
        if first == second:
            continue
        a, b = accuracies(comparison, first), accuracies(comparison, second)
        shares = [mannwhitneyu(a[name], b[name]).statistic / 9 for name in THREE]
        assert summary.improvement[first, second] == pytest.approx(fmean(shares))
        assert summary.improvement[second, first] == pytest.approx(1 - fmean(shares))
    for method, one in summary.methods.items():
        if method == summary.best:
            assert one.better is None
            continue
        assert one.better == summary.improvement[method, summary.best]
        assert one.better_interval is not None
        assert one.better_interval[0] <= one.better <= one.better_interval[1]


def test_winning_every_time_is_not_certain(summary: DataSetSummary) -> None:
    worst = summary.methods["ia3"]
    assert worst.better == 0
    assert worst.better_interval is not None
    assert worst.better_interval[1] > 0.2


def test_profile_is_the_share_of_runs_above_each_threshold(summary: DataSetSummary) -> None:
    for one in summary.methods.values():
        profile = one.profile
        for at in (0, 40, 60, 100):
            above = [score > profile.thresholds[at] for score in one.scores.ravel()]
            assert profile.share[at] == pytest.approx(fmean(above))
        assert (np.diff(profile.share) <= 0).all()
        assert profile.low is not None
        assert profile.high is not None
        assert (profile.low <= profile.share).all()
        assert (profile.share <= profile.high).all()


@given(
    arrays(np.float64, (3, 4), elements=st.floats(-1, 1)),
    st.floats(0.1, 5),
    st.floats(-3, 3),
)
def test_interquartile_mean_follows_scale_and_shift(
    scores: np.ndarray, scale: float, shift: float
) -> None:
    assert iqm(scale * scores + shift) == pytest.approx(scale * iqm(scores) + shift, abs=1e-9)


def test_draws_resample_seeds_within_each_data_set() -> None:
    scores = np.asarray([[0.0, 10.0], [1.0, 20.0]])
    drawn = resampled(scores)
    assert drawn is not None
    assert (drawn.counts.sum(axis=1) == 2).all()
    assert drawn.scores[:, 0] == pytest.approx([0.5 - np.sqrt(0.5), 0.5 + np.sqrt(0.5)])
    assert drawn.scores[:, 1] == pytest.approx([15 - 5 * np.sqrt(2), 15 + 5 * np.sqrt(2)])
    # So a mean over seeds varies as much as it should: by the variance of seeds / their number.
    variance = scores.var(axis=0, ddof=1) / 2
    means = (drawn.counts * drawn.scores).mean(axis=1)
    assert means.var(axis=0) == pytest.approx(variance, rel=0.1)
    assert resampled(scores[:1]) is None


@given(
    arrays(np.float64, (3, 4), elements=st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])),
    arrays(np.float64, (2, 4), elements=st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])),
)
def test_statistics_of_draws_are_those_of_the_drawn_runs(
    first: np.ndarray, second: np.ndarray
) -> None:
    drawn, other = resampled(first, 1), resampled(second, 2)
    assert drawn is not None
    assert other is not None
    above, iqms = drawn.shares_above(np.asarray([-0.1, 0.3])), drawn.iqm
    better = drawn.better_than(other)
    for draw in (0, 7, 1999):
        runs, rivals = runs_of(drawn, draw), runs_of(other, draw)
        assert iqms[draw] == pytest.approx(trim_mean(runs, 0.25, axis=None))
        assert above[:, draw].tolist() == [(runs > -0.1).mean(), (runs > 0.3).mean()]
        assert better[draw] == pytest.approx(improvement(runs, rivals))


def runs_of(drawn: Resampled, draw: int) -> np.ndarray:
    """Return the runs (seeds, data sets) of one draw."""
    columns = zip(drawn.scores.T, drawn.counts[draw].T.astype(int), strict=True)
    return np.stack([np.repeat(scores, counts) for scores, counts in columns], axis=1)


def test_one_seed_has_no_interval() -> None:
    found = summarize_data_sets(
        make_recipes({"a": {"full": [0.9], "lora": [0.8]}, "b": {"full": [0.9], "lora": [0.8]}})
    )
    assert found is not None
    assert [one.interval for one in found.methods.values()] == [None, None]
    assert found.methods["lora"].better_interval is None
    assert found.methods["full"].profile.low is None


def test_method_that_was_not_run_everywhere_is_excluded_by_name() -> None:
    more = {**THREE, "films": {**THREE["films"], "bitfit": [0.8, 0.81, 0.8]}}
    found = summarize_data_sets(make_recipes(more))
    assert found is not None
    assert found.excluded == {"bitfit": (Excluded.NOT_EVERYWHERE, ("goods", "verse"))}
    assert "bitfit" not in found.methods


def test_method_with_an_error_is_excluded_by_name() -> None:
    wrong = {**THREE, "films": {**THREE["films"], "ia3": [0.4, 0.41, 0.4]}}  # below the majority
    found = summarize_data_sets(make_recipes(wrong))
    assert found is not None
    assert found.excluded == {"ia3": (Excluded.ERROR, ("films",))}


def test_as_many_seeds_count_as_every_data_set_has() -> None:
    fewer = {**THREE, "goods": {**THREE["goods"], "lora": THREE["goods"]["lora"][:2]}}
    found = summarize_data_sets(make_recipes(fewer))
    assert found is not None
    assert found.methods["lora"].scores.shape == (2, 3)
    assert found.methods["full"].scores.shape == (3, 3)


def test_recipe_without_a_baseline_is_left_out_by_name(comparison: PrintableComparison) -> None:
    records = tuple(
        replace(record, data={"fingerprint": "x"}) if record.recipe_name == "goods" else record
        for record in comparison.records
    )
    found = summarize_data_sets(replace(comparison, records=records))
    assert found is not None
    assert (found.recipes, found.left_out) == (("films", "verse"), ("goods",))


def test_single_recipe_and_a_learning_curve_have_no_summary() -> None:
    assert summarize_data_sets(make_comparison({"full": ([0.9, 0.91], {})})) is None
    assert summarize_data_sets(make_curve()) is None


def test_later_section_of_a_recipe_is_not_another_data_set() -> None:
    two = {"films": THREE["films"], "films (2)": THREE["goods"]}
    assert summarize_data_sets(make_recipes(two)) is None


def coverage(seeds: int, data_sets: int, spread: float, repetitions: int) -> float:
    rng = np.random.default_rng(seeds + data_sets)
    true = rng.uniform(0.3, 0.8, data_sets)
    shape = (seeds, data_sets)
    further = true + spread * rng.standard_normal((20_000, *shape))
    target = trim_mean(further.reshape(len(further), -1), 0.25, axis=1).mean()
    held = 0
    for seed in range(repetitions):
        scores = true + spread * rng.standard_normal(shape)
        drawn = resampled(scores, seed)
        assert drawn is not None
        low, high = iqm_interval(scores, drawn)
        held += low <= target <= high
    return held / repetitions


def test_interval_holds() -> None:
    assert coverage(3, 4, 0.03, 100) >= 0.86


@pytest.mark.simulation
@pytest.mark.parametrize("spread", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("seeds", "data_sets"), [(2, 2), (2, 4), (3, 2), (3, 4), (3, 10), (5, 3)])
def test_intervals_hold_in_the_documented_settings(
    seeds: int, data_sets: int, spread: float
) -> None:
    share = coverage(seeds, data_sets, spread, 1000)
    print(f"\n{share:.1%}: {seeds} seeds, {data_sets} data sets, spread {spread}")
    assert share >= 0.88  # 90 %, less chance
