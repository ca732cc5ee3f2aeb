"""Error rates and power of the comparison of methods, by simulation.

Without `-m simulation` a few settings are simulated a few times: enough to notice a gross mistake.
With it, and `-s`, the figures of the documentation are printed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulation import (
    Setting,
    all_differences_covered,
    any_alarm,
    covered,
    equal,
    first_two_separate,
    pooled_separate,
    samples,
    share,
)

from peft_methods.analysis.samples import Sample

WILD, ALMOST_ALL_WILD = (6, 0.5), (0.5, 6)  # the first method's spread, and that of the others
FEW = 100  # repetitions without -m simulation
MANY = 1000


def spread_out(methods: int) -> tuple[float, ...]:
    return tuple(np.geomspace(0.5, 6, methods))


def half_wild(methods: int) -> tuple[float, ...]:
    return (6,) * (methods // 2) + (0.5,)


DOCUMENTED = [
    equal(8, (2.3,), (3,)),
    equal(8, (2.3,), (2,)),
    equal(2, (2.3,), (3,)),
    equal(40, (2.3,), (3,), rows=200),
    equal(2, WILD, (3,)),
    equal(8, WILD, (3,)),
    equal(8, WILD, (2,)),
    equal(8, WILD, (2, 3)),
    equal(8, WILD, (2, 10)),
    equal(8, spread_out(8), (3,)),
    equal(8, half_wild(8), (3,)),
    equal(20, half_wild(20), (3,), rows=500),
    equal(40, half_wild(40), (3,), rows=200),
    equal(8, WILD, (3,), 0.995, rows=200),
    equal(8, WILD, (3,), 0.5, rows=5000),
    equal(8, WILD, (3,), 0.85, rows=500, shares=(0.9, 0.07, 0.03)),
]
GRID = [
    equal(methods, spreads, seeds, accuracy, rows=rows)
    for methods, rows, accuracy in (
        (2, 200, 0.8),
        (2, 5000, 0.95),
        (3, 1000, 0.8),
        (8, 200, 0.995),
        (8, 1000, 0.8),
        (20, 500, 0.8),
        (40, 200, 0.9),
    )
    for spreads in ((2.3,), WILD, ALMOST_ALL_WILD, (3, 1), spread_out(methods), half_wild(methods))
    for seeds in ((2,), (3,), (5,), (2, 3), (2, 10), (3, 10))
]
POWER = [  # points between the first two of several methods, and seeds
    (2, 8, 3),
    (2, 5, 7),
    (3, 8, 3),
    (8, 12, 3),
    (8, 7, 5),
    (8, 5, 15),
    (20, 12, 3),
    (40, 13, 3),
]


def apart(methods: int, points: float, seeds: int) -> Setting:
    """Equal methods, but for the first two."""
    accuracies = (0.8 + points / 200, 0.8 - points / 200) + (0.8,) * (methods - 2)
    return Setting(accuracies, (2.3,) * methods, (seeds,) * methods)


def above(limit: float, repetitions: int) -> float:
    """Return what a rate at the limit exceeds by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.999, repetitions, limit)) / repetitions


@pytest.mark.parametrize(
    "setting",
    [
        equal(8, (2.3,), (3,)),
        equal(2, WILD, (3,)),
        equal(8, WILD, (2, 10)),
        equal(20, half_wild(20), (3,), rows=200),
    ],
    ids=str,
)
def test_equal_methods_are_rarely_called_different(setting: Setting) -> None:
    assert share(setting, any_alarm, FEW) <= above(0.06, FEW)


@pytest.mark.simulation
@pytest.mark.parametrize("setting", DOCUMENTED, ids=str)
def test_false_alarms_of_the_documented_settings(setting: Setting) -> None:
    rate = share(setting, any_alarm, MANY)
    print(f"\nfalse alarms in {rate:.1%}: {setting}")
    assert rate <= above(0.06, MANY)


@pytest.mark.simulation
@pytest.mark.parametrize("setting", GRID, ids=str)
def test_false_alarms_over_the_whole_grid(setting: Setting) -> None:
    rate = share(setting, any_alarm, MANY)
    print(f"\nfalse alarms in {rate:.1%}: {setting}")
    assert rate <= above(0.06, MANY)


def known_miss(case: tuple[int, float, int]) -> Any:
    """Mark the documented case of two methods of three seeds, which has 84.5 % of the power."""
    methods, _, seeds = case
    missed = pytest.mark.xfail(strict=True, reason="84.5 % of the power; see comparing.md")
    return pytest.param(*case, marks=missed if (methods, seeds) == (2, 3) else ())


@pytest.mark.simulation
@pytest.mark.parametrize(("methods", "points", "seeds"), [*map(known_miss, POWER)])
def test_power_is_near_that_of_the_best_test_if_all_methods_spread_alike(
    methods: int, points: int, seeds: int
) -> None:
    setting = apart(methods, points, seeds)
    power, best = (share(setting, one, MANY) for one in (first_two_separate, pooled_separate))
    print(
        f"\n{points} points between two of {methods} methods, {seeds} seeds: "
        f"found in {power:.1%}, by the pooled variance in {best:.1%}"
    )
    assert power >= 0.85 * best


@pytest.mark.parametrize("setting", [equal(3, WILD, (3,), rows=500)], ids=str)
def test_intervals_hold(setting: Setting) -> None:
    assert share(setting, covered(setting.accuracies), 50) >= 1 - above(0.06, 150)
    assert share(setting, all_differences_covered, FEW) >= 1 - above(0.06, FEW)


@pytest.mark.simulation
@pytest.mark.parametrize("setting", DOCUMENTED[:-1], ids=str)  # macro F1: test_metric_error_rates
def test_intervals_hold_in_the_documented_settings(setting: Setting) -> None:
    of_methods = share(setting, covered(setting.accuracies), 300)
    of_differences = share(setting, all_differences_covered, MANY // 2)
    print(
        f"\nintervals of methods hold in {of_methods:.1%}, all of differences together in "
        f"{of_differences:.1%}: {setting}"
    )
    assert of_methods >= 1 - above(0.06, 300)
    assert of_differences >= 1 - above(0.06, MANY // 2)


def test_pooled_mcnemar_raises_false_alarms() -> None:
    """McNemar's test treats the answers of three seeds as independent: many false alarms."""
    setting = equal(2, (2.3,), (3,))

    def mcnemar(methods: list[Sample]) -> Any:
        first, second = (np.round(3 * one.by_example) for one in methods)
        won, lost = (np.maximum(sign * (first - second), 0).sum(-1) for sign in (1, -1))
        return stats.chi2.sf((np.abs(won - lost) - 1.0) ** 2 / (won + lost), 1) < 0.05

    assert share(setting, mcnemar, FEW) > 0.15
    assert share(setting, any_alarm, FEW) <= above(0.06, FEW)


def test_simulated_methods_have_the_accuracy_that_they_should() -> None:
    setting = Setting((0.9, 0.7), (6, 0.5), (3, 2), rows=2000)
    means = np.mean([[one.mean.mean() for one in batch] for batch in samples(setting, 500)], 0)
    assert means == pytest.approx([0.9, 0.7], abs=0.006)
