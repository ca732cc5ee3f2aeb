"""Comparison of one metric: its figures, its pace, and what limits it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders import make_record
from peft_methods.analysis.baseline import Entry
from peft_methods.analysis.changes import RecipeBaseline, runs_of
from peft_methods.analysis.metric_comparison import (
    MetricComparison,
    Runs,
    compare,
    family_of,
    pace_variance,
    worse,
)
from peft_methods.analysis.regression_report import Change
from peft_methods.analysis.tolerances import default_tolerances, parse_tolerance

RNG = np.random.default_rng(2)
TIME = parse_tolerance("train_seconds:10%")
METHODS = ("full", "lora", "ia3", "bitfit")


def entry(method: str, metrics: dict[str, Any], earlier: tuple[Entry, ...] = ()) -> Entry:
    record = make_record(method)
    seeds = tuple(range(len(next(iter(metrics.values())))))
    return Entry(
        "embedded", method, seeds, metrics, {}, record.data, record.environment, earlier=earlier
    )


def changes(before: dict[str, Any], now: list[dict[str, Any]], sessions: int = 1) -> list[Change]:
    earlier = tuple(entry("lora", before) for _ in range(sessions - 1))
    part = RecipeBaseline(
        {
            "lora": entry("lora", before, earlier),
            **{method: entry(method, before) for method in METHODS if method != "lora"},
        },
        default_tolerances("accuracy"),
    )
    record = make_record("lora")
    return part.changes("lora", [replace(record, metrics=one) for one in now])


def test_missing_values_are_left_out_together_with_their_pace() -> None:
    values = {"train_seconds": (10.0, None, 12.0), "pace_seconds": (0.1, 0.2, 0.3)}
    runs = runs_of(values, "train_seconds")
    assert runs.values.tolist() == [10, 12]
    assert runs.pace is not None
    assert runs.pace.tolist() == [0.1, 0.3]
    assert runs_of({**values, "pace_seconds": (0.1, 0.2, None)}, "train_seconds").pace is None
    assert runs_of({"train_seconds": (10.0,)}, "train_seconds").pace is None


def paced(noise: float, now: float = 1.0, *, has_pace: bool = True) -> MetricComparison:
    """Compare eight methods with one seed whose machine is `now` times as slow."""

    def session(slowness: float) -> dict[str, Runs]:
        return {
            f"m{number}": Runs(
                np.asarray([10 * slowness]),
                0.05 * slowness * (1 + noise * RNG.standard_normal(1)) if has_pace else None,
            )
            for number in range(8)
        }

    before = {name: [one] for name, one in session(1.0).items()}
    return compare(TIME, before, session(now), family_of("train_seconds", ["train_seconds"], 8))


def test_steady_pace_takes_off_what_the_machine_does() -> None:
    found = paced(0.001, 1.4)
    assert found.by_pace
    assert abs(float(found.alone("m0"))) < 0.01
    judged, of_all = found.of_method("m0"), found.common()
    assert judged is not None
    assert not judged.fails(TIME)
    plain = paced(0.001, 1.4, has_pace=False).common()
    assert of_all is not None
    assert plain is not None
    assert of_all.explained < plain.explained / 2


def test_unsteady_pace_is_not_used() -> None:
    found = paced(0.2, 1.4)
    assert not found.by_pace
    assert float(found.alone("m0")) == pytest.approx(0.4)
    assert not paced(0.001, has_pace=False).by_pace


def test_variance_of_the_pace_is_within_sessions() -> None:
    shift = np.asarray([1.0, 1.0, 1.0])
    steady = [[Runs(shift, 0.1 * shift), Runs(shift, 0.2 * shift)]] * 2
    assert pace_variance(steady) == pytest.approx(0)
    assert pace_variance([[Runs(shift[:2], 0.1 * shift[:2])]]) is None
    varied = [[Runs(shift, np.asarray([0.9, 1.0, 1.1]))], [Runs(shift, np.ones(3))]]
    assert pace_variance(varied) == pytest.approx(0.02 / 5)


def test_change_is_relative_to_the_pace_and_states_it() -> None:
    before = {"train_seconds": (10.0, 10.1, 9.9), "pace_seconds": (0.1, 0.1, 0.1)}
    now = [{"train_seconds": 13.0, "pace_seconds": 0.13}] * 3
    (change,) = changes(before, now)
    assert not change.fails
    assert change.pace == pytest.approx(0.3)
    assert "worse by" in str(change)
    assert "at the machine's pace (+30.0% time)" in str(change)


def test_limit_names_what_is_assumed_and_what_would_measure_it() -> None:
    accuracy, time = changes(
        {"accuracy": (0.9,), "train_seconds": (10.0,)}, [{"accuracy": 0.9, "train_seconds": 10.0}]
    )
    assert accuracy.limit == (
        "one seed (a standard deviation of 3pp between seeds is assumed); needs two seeds or more"
    )
    assert time.limit == (
        "one seed (a standard deviation of 2% between seeds is assumed); one session in the "
        "baseline (a standard deviation of 5% between sessions is assumed); needs two seeds or "
        "more and more sessions in the baseline, or its pace"
    )
    two = changes({"accuracy": (0.9, 0.91)}, [{"accuracy": 0.9}, {"accuracy": 0.91}], sessions=2)
    assert two[0].limit == ""


@given(
    st.sampled_from(["accuracy:1pp", "accuracy:1%", "train_seconds:5%", "samples_per_second:5%"]),
    st.floats(0, 1e6),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=4),
)
@example("accuracy:1%", 1.1e-308, [2.0])  # more than a float can hold
def test_arrays_are_worse_by_what_the_tolerance_says(
    text: str, level: float, values: list[float]
) -> None:
    tolerance = parse_tolerance(text)
    found = worse(tolerance, np.asarray(level), np.asarray(values))
    assert found.tolist() == pytest.approx([tolerance.worse(level, value) for value in values])
