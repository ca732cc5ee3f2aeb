"""Tests of one metric over all methods of a session."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.analysis.metric_comparison import family_of
from peft_methods.analysis.noise import Assumed
from peft_methods.analysis.session_change import Family, JudgedChange, MetricNoise
from peft_methods.analysis.significance import ALPHA
from peft_methods.analysis.tolerances import parse_tolerance

TIME = Assumed(0.05, 0.02)


def noise(methods: int, *, drifting: bool = True, seeds: int = 1) -> MetricNoise:
    baseline = {f"m{number}": (np.zeros(seeds),) for number in range(methods)}
    return MetricNoise(
        baseline, TIME if drifting else Assumed(0.0, 0.02), Family(methods, 1.0, drifting)
    )


@given(
    st.lists(
        st.sampled_from(["accuracy", "macro_f1", "train_seconds", "peak_memory_bytes"]),
        min_size=1,
        unique=True,
    ),
    st.integers(1, 30),
)
def test_all_tests_of_a_recipe_share_five_percent(metrics: list[str], methods: int) -> None:
    total = 0.0
    for metric in metrics:
        family = family_of(metric, metrics, methods)
        total += methods * (family.of_method + family.of_relative) + family.of_common
    assert total == pytest.approx(ALPHA)


def test_memory_takes_little_of_the_error_rate() -> None:
    metrics = ["accuracy", "peak_memory_bytes", "train_seconds"]
    shares = {metric: family_of(metric, metrics, 8).share for metric in metrics}
    assert shares["accuracy"] == shares["train_seconds"] == 4 * shares["peak_memory_bytes"]


def test_change_fails_beyond_tolerance_and_chance() -> None:
    change = JudgedChange(np.asarray([0.05, 0.2, 0.2]), np.asarray([0.0, 0.1, 0.3]))
    assert change.fails(parse_tolerance("train_seconds:10%")).tolist() == [False, True, False]


def test_unknown_spread_is_not_judged() -> None:
    unknown = MetricNoise({"m0": (np.zeros(1),)}, Assumed(0.0, None), Family(1, 1.0, False))
    assert unknown.method_change("m0", np.asarray([0.5])) is None


def test_change_from_nothing_to_something_fails_by_itself() -> None:
    found = noise(1).method_change("m0", np.asarray([np.inf]))
    assert found is not None
    assert found.fails(parse_tolerance("train_seconds:10%"))
    now = {f"m{number}": np.asarray([np.inf]) for number in range(4)}
    assert noise(4).common_change(now) is None
    assert noise(4).relative_change("m0", now) is None


def test_few_methods_have_no_common_shift_and_no_comparison_with_others() -> None:
    now = {"m0": np.ones(1), "m1": np.ones(1)}
    assert noise(2).common_change(now) is None
    assert noise(2).relative_change("m0", now) is None
    four = {f"m{number}": np.ones(1) for number in range(4)}
    assert noise(4, drifting=False).relative_change("m0", four) is None


def test_drift_that_all_show_is_taken_off_as_far_as_it_is_likely() -> None:
    drifted = {f"m{number}": np.asarray([0.06]) for number in range(8)}
    found = noise(8).relative_change("m0", {**drifted, "m0": np.asarray([0.20])})
    assert found is not None
    assert float(found.worse) == pytest.approx(0.14)
    slower = {name: np.asarray([0.9]) for name in drifted}
    common = noise(8).relative_change("m0", slower)
    assert common is not None
    assert float(common.worse) == pytest.approx(0.9 - 2 * 0.05 * 2**0.5)


def test_common_shift_is_judged_over_methods() -> None:
    found = noise(8).common_change({f"m{number}": np.asarray([0.5]) for number in range(8)})
    assert found is not None
    assert float(found.worse) == pytest.approx(0.5)
    assert 0.1 < float(found.explained) < 0.3
