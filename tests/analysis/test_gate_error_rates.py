"""False failures and power of the regression check, by simulation of whole sessions.

Without `-m simulation` few sessions are simulated: enough to notice a gross mistake. With it, and
`-s`, the figures of docs/how-to/regression-check.md are printed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gate_simulation import (
    METHODS,
    UNCHANGED,
    Scene,
    Truth,
    failures,
    rate,
    session,
    values_of_repetition,
)
from scipy import stats

from builders import make_record
from peft_methods.analysis.baseline import Baseline, Entry
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.analysis.samples import Array
from peft_methods.runs.record import Record

FEW, MANY = 200, 1000
BASELINES = ((1, False), (1, True), (5, False), (5, True))  # sessions, and whether they have a pace
GRID = [
    Scene(seeds=seeds, sessions=sessions, pace=pace, spread=spread, drift=drift)
    for seeds, (sessions, pace), (spread, drift) in product(
        (1, 3), BASELINES, ((0.5, 0.0), (1.5, 0.02), (3.0, 0.05))
    )
]
ODD = [
    Scene(wild=6),
    Scene(wild=6, sessions=5),
    Scene(of_runs=True, pace=True),
    Scene(of_runs=True, pace=True, seeds=1),
    Scene(pace=True, pace_noise=0.07),
    Scene(pace=True, pace_noise=0.07, seeds=1),
    Scene(own=0.05, drift=0.02, pace=True),
    Scene(own=0.05, drift=0.02, pace=True, seeds=1),
    Scene(own=0.05, drift=0.02, pace=True, sessions=5),
    Scene(own=0.05, drift=0.02),
    Scene(methods=1),
    Scene(methods=3, sessions=5, pace=True),
]
SLOWER = Truth(time=0.15)
ALL_SLOWER = Truth(time=0.15, in_all=True)
TWO_POINTS, THREE_POINTS = Truth(points=2), Truth(points=3)
ALL_THREE_POINTS = Truth(points=3, in_all=True)
POWER = [
    *(
        (Scene(seeds=seeds, sessions=sessions, pace=pace), truth)
        for truth, seeds, (sessions, pace) in product((SLOWER, ALL_SLOWER), (1, 3), BASELINES)
    ),
    *(
        (Scene(seeds=seeds, sessions=sessions, spread=spread), truth)
        for (truth, spread), seeds, sessions in product(
            ((TWO_POINTS, 0.5), (THREE_POINTS, 1.5), (ALL_THREE_POINTS, 1.5)), (1, 3), (1, 5)
        )
    ),
]
REQUIRED = [  # found in at least 80 %
    (Scene(pace=True), SLOWER),
    (Scene(sessions=5), SLOWER),
    (Scene(sessions=5, pace=True), SLOWER),
    (Scene(pace=True), ALL_SLOWER),
    (Scene(sessions=5, pace=True), ALL_SLOWER),
    (Scene(spread=0.5), TWO_POINTS),
    (Scene(spread=0.5, sessions=5), TWO_POINTS),
]


def above(limit: float, repetitions: int) -> float:
    """Return what a rate at the limit exceeds by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.999, repetitions, limit)) / repetitions


def below(limit: float, repetitions: int) -> float:
    """Return what a rate at the limit falls below by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.001, repetitions, limit)) / repetitions


@pytest.mark.parametrize("scene", [Scene(methods=1), Scene(methods=3, seeds=1, pace=True)], ids=str)
def test_unchanged_session_rarely_fails(scene: Scene) -> None:
    assert rate(scene, UNCHANGED, FEW) <= above(0.05, FEW)


def test_slower_method_is_found() -> None:
    assert rate(Scene(pace=True), SLOWER, FEW) >= below(0.8, FEW)


def test_pace_helps_one_seed() -> None:
    plain, paced = (rate(Scene(seeds=1, pace=pace), SLOWER, FEW) for pace in (False, True))
    assert paced >= plain


@cache
def _record(method: str) -> Record:
    record = make_record(method)
    return replace(record, environment={**record.environment, "packages": {}})


def _entry(method: str, metrics: dict[str, Array], earlier: tuple[Entry, ...] = ()) -> Entry:
    record, seeds = _record(method), tuple(range(len(metrics["accuracy"])))
    values = {name: tuple(found.tolist()) for name, found in metrics.items()}
    flat, data = record.spec.flat(), record.data
    return Entry("embedded", method, seeds, values, flat, data, record.environment, earlier)


@pytest.mark.parametrize(
    "scene",
    [Scene(methods=4, sessions=2, pace=True), Scene(methods=4, seeds=1), Scene(methods=2)],
    ids=str,
)
def test_simulation_decides_as_the_regression_check_does(scene: Scene) -> None:
    rng, repetitions = np.random.default_rng(3), 6
    before = [session(scene, rng, repetitions) for _ in range(scene.sessions)]
    now = session(scene, rng, repetitions, Truth(points=8, time=0.2))
    simulated = failures(before, now)
    assert any(fails.any() for fails in simulated.values())
    for repetition in range(repetitions):
        sessions = [values_of_repetition(one, repetition) for one in before]
        entries = {
            ("embedded", method): _entry(
                method,
                sessions[-1][method],
                tuple(_entry(method, one[method]) for one in sessions[:-1]),
            )
            for method in METHODS[: scene.methods]
        }
        baseline = Baseline(Path("base.json"), "2026-01-01", "c0ffee", entries)
        records = [
            replace(
                _record(method),
                metrics={name: float(found[seed]) for name, found in values.items()},
            )
            for method, values in values_of_repetition(now, repetition).items()
            for seed in range(scene.seeds)
        ]
        report = RegressionCheck({"embedded": baseline}).check(records)
        found = {(entry.method, entry.metric) for entry in report.failures}
        assert found == {key for key, fails in simulated.items() if fails[repetition]}


@pytest.mark.simulation
@pytest.mark.parametrize("scene", [*GRID, *ODD], ids=str)
def test_unchanged_sessions_fail_in_at_most_five_percent(scene: Scene) -> None:
    found = rate(scene, UNCHANGED, MANY)
    print(f"\nfails unchanged in {found:.1%}: {scene}")
    assert found <= above(0.05, MANY)


@pytest.mark.simulation
@pytest.mark.parametrize(("scene", "truth"), POWER, ids=str)
def test_real_changes_are_found(scene: Scene, truth: Truth) -> None:
    found = rate(scene, truth, MANY)
    print(f"\nfound in {found:.1%}: {truth}, {scene}")
    assert found >= below(0.8, MANY) or (scene, truth) not in REQUIRED


def test_required_power_is_simulated() -> None:
    assert set(REQUIRED) <= set(POWER)
