"""False failures and power of the regression check, by simulation of whole sessions.

Without `-m simulation` few sessions are simulated: enough to notice a gross mistake. With it, and
`-s`, the figures of docs/how-to/regression-check.md are printed.
"""

from __future__ import annotations

from itertools import product

import pytest
from gate_simulation import UNCHANGED, Scene, Truth, rate
from scipy import stats

MANY = 400
BASELINES = ((1, False), (1, True), (5, False), (5, True))  # sessions, and whether they have a pace
GRID = [
    Scene(seeds=seeds, sessions=sessions, pace=pace, spread=spread, drift=drift)
    for seeds, (sessions, pace), spread, drift in product(
        (1, 3), BASELINES, (0.5, 1.5, 3.0), (0.0, 0.02, 0.05)
    )
]
SLOWER = Truth(time=0.15)
ALL_SLOWER = Truth(time=0.15, in_all=True)
REQUIRED = [  # found in at least 80 %
    (Scene(pace=True), SLOWER),
    (Scene(pace=True), ALL_SLOWER),
    (Scene(sessions=5), SLOWER),
    (Scene(spread=0.5), Truth(points=2)),
]
DOCUMENTED = [  # found less often
    (Scene(), SLOWER),
    (Scene(), ALL_SLOWER),
    (Scene(sessions=5), ALL_SLOWER),
    (Scene(seeds=1, pace=True), SLOWER),
    (Scene(seeds=1, spread=0.5), Truth(points=2)),
    (Scene(spread=1.5), Truth(points=3)),
    (Scene(spread=1.5), Truth(points=3, in_all=True)),
]


def above(limit: float, repetitions: int) -> float:
    """Return what a rate at the limit exceeds by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.999, repetitions, limit)) / repetitions


def test_unchanged_session_rarely_fails() -> None:
    assert rate(Scene(methods=3), UNCHANGED, 15) <= above(0.05, 15)


def test_slower_method_is_found() -> None:
    assert rate(Scene(methods=3, pace=True), ALL_SLOWER, 10) >= 0.8


@pytest.mark.simulation
@pytest.mark.parametrize("scene", GRID, ids=str)
def test_unchanged_sessions_fail_in_at_most_five_percent(scene: Scene) -> None:
    found = rate(scene, UNCHANGED, MANY)
    print(f"\nfails unchanged in {found:.1%}: {scene}")
    assert found <= above(0.05, MANY)


@pytest.mark.simulation
@pytest.mark.parametrize(("scene", "truth"), [*REQUIRED, *DOCUMENTED], ids=str)
def test_real_changes_are_found(scene: Scene, truth: Truth) -> None:
    found = rate(scene, truth, MANY)
    print(f"\nfound in {found:.1%}: {truth}, {scene}")
    assert found >= 0.8 or (scene, truth) in DOCUMENTED
