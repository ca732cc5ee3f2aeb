"""What the next doubling of the training rows brings: the fitted law, its interval, refusals.

The coverage of the documentation: `pytest tests/analysis/test_forecast.py -m simulation -s`.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import BATCH, Setting, one_of, samples

from peft_methods.analysis.forecast import Forecast, NoForecast, fit, forecasts
from peft_methods.analysis.samples import Sample, sample_of

THREE, FIVE = (100, 300, 1000), (100, 200, 400, 800, 1600)
LAWS = [  # floor, scale at the smallest size, exponent
    (0.1, 0.2, 0.5),
    (0.0, 0.3, 0.25),
    (0.05, 0.4, 1.0),
    (0.2, 0.0, 1.0),
    (0.02, 0.1, 0.5),
]


def constant(accuracy: float, seeds: int = 3, examples: int = 1000, seed: int = 0) -> Sample:
    """Seeds that spread little around an accuracy."""
    rng = np.random.default_rng(seed)
    return sample_of((rng.random((seeds, examples)) < accuracy).astype(np.float64))


@given(st.floats(0, 0.3), st.floats(0.01, 0.3), st.floats(0.1, 3), st.sampled_from([THREE, FIVE]))
def test_fit_finds_the_law_that_the_errors_follow(
    floor: float, scale: float, exponent: float, sizes: tuple[int, ...]
) -> None:
    ratios = np.asarray(sizes) / sizes[-1]
    errors = floor + scale * ratios**-exponent
    (a,), (b,), (c,) = fit(ratios, errors[None], np.ones(len(sizes)))
    assert min(a, b, c) >= 0
    assert a + b * ratios**-c == pytest.approx(errors, abs=0.02 * errors.max())
    truth = floor + scale * 2**-exponent
    assert a + b * 2**-c == pytest.approx(truth, abs=0.02 * errors.max())


def test_forecast_contains_a_law_without_noise() -> None:
    rows = {"lora": [constant(1 - 0.1 - 0.2 * (n / 100) ** -0.5) for n in FIVE]}
    found = forecasts(FIVE, rows, 1.0)["lora"]
    assert isinstance(found, Forecast)
    truth = 1 - 0.1 - 0.2 * (3200 / 100) ** -0.5
    assert found.rows == 3200
    assert found.low <= truth <= found.high
    assert found.low <= found.value <= found.high
    assert 0 <= found.gain_low <= found.gain <= found.gain_high
    assert found == forecasts(FIVE, rows, 1.0)["lora"]  # the same in every session


def test_lower_is_better_gives_the_mirrored_forecast() -> None:
    rising = [constant(0.6, seed=1), constant(0.75, seed=2), constant(0.8, seed=3)]
    flipped = [sample_of(1 - np.stack([one.by_example] * 3)) for one in rising]
    same = [sample_of(np.stack([one.by_example] * 3)) for one in rising]
    up = forecasts(THREE, {"m": same}, 1.0)["m"]
    down = forecasts(THREE, {"m": flipped}, 0.0, higher_is_better=False)["m"]
    assert isinstance(up, Forecast)
    assert isinstance(down, Forecast)
    assert down.value == pytest.approx(1 - up.value)
    assert (down.low, down.high) == pytest.approx((1 - up.high, 1 - up.low))
    assert down.gain == pytest.approx(up.gain)


@pytest.mark.parametrize(
    ("sizes", "accuracies", "seeds", "best", "reason"),
    [
        ((100, 300), (0.6, 0.7), 3, 1.0, NoForecast.FEW_SIZES),
        (THREE, (0.6, 0.7, 0.8), 1, 1.0, NoForecast.NOT_COMPARED),
        (THREE, (0.6, 0.7), 3, 1.0, NoForecast.NOT_COMPARED),
        (THREE, (0.6, 0.7, 0.8), 3, None, NoForecast.NO_LIMIT),
        (THREE, (0.9, 0.8, 0.6), 3, 1.0, NoForecast.MISFIT),
        ((100, 120, 140), (0.60, 0.63, 0.68), 3, 1.0, NoForecast.VAGUE),
    ],
)
def test_forecast_is_refused_with_the_reason(
    sizes: tuple[int, ...],
    accuracies: tuple[float, ...],
    seeds: int,
    best: float | None,
    reason: NoForecast,
) -> None:
    own = [constant(accuracy, seeds, seed=at) for at, accuracy in enumerate(accuracies)]
    assert forecasts(sizes, {"lora": own}, best)["lora"] is reason


def test_perfect_accuracy_is_not_certain() -> None:
    perfect = [sample_of(np.ones((3, 200))) for _ in THREE]
    found = forecasts(THREE, {"lora": perfect}, 1.0)["lora"]
    assert isinstance(found, Forecast)
    assert found.high == 1
    assert found.low < 0.995


def coverage(
    law: tuple[float, float, float],
    sizes: tuple[int, ...],
    seeds: int,
    spread: float,
    repetitions: int,
) -> tuple[float, float, float, float]:
    """Return how often the intervals of value and gain hold, and how often there is none.

    The last figure is the mean width of the gain's interval.
    """
    floor, scale, exponent = law

    def accuracy(rows: int) -> float:
        return float(1 - floor - scale * (rows / sizes[0]) ** -exponent)

    last, doubled = accuracy(sizes[-1]), accuracy(2 * sizes[-1])
    setting = Setting(
        tuple(map(accuracy, sizes)), (spread,) * len(sizes), (seeds,) * len(sizes), 1000
    )
    held: list[tuple[float, float, float]] = []
    total = 0
    for batch in samples(setting, repetitions):
        for repetition in range(BATCH):
            total += 1
            own = [one_of(sample, repetition) for sample in batch]
            found = forecasts(sizes, {"lora": own}, 1.0)["lora"]
            if isinstance(found, Forecast):
                gains = found.gain_low <= doubled - last <= found.gain_high
                width = found.gain_high - found.gain_low
                held.append((found.low <= doubled <= found.high, gains, width))
    value, gain, width = np.mean(held, axis=0).tolist()
    return value, gain, 1 - len(held) / total, width


def test_intervals_hold() -> None:
    value, gain, *_ = coverage(LAWS[0], THREE, 3, 2.3, 50)
    assert value >= 0.86  # chance: 50 repetitions
    assert gain >= 0.86


@pytest.mark.simulation
@pytest.mark.parametrize("sizes", [THREE, (100, 300, 1000, 3000), FIVE])
@pytest.mark.parametrize(("seeds", "spread"), [(3, 2.3), (2, 2.3), (5, 0.5), (3, 6.0)])
@pytest.mark.parametrize("law", LAWS)
def test_intervals_hold_in_the_documented_settings(
    law: tuple[float, float, float], sizes: tuple[int, ...], seeds: int, spread: float
) -> None:
    value, gain, refused, width = coverage(law, sizes, seeds, spread, 400)
    print(
        f"\nvalue in {value:.1%}, gain in {gain:.1%} and {100 * width:.1f} points wide, none in "
        f"{refused:.1%}: error "
        f"{law[0]} + {law[1]} n^-{law[2]}, {len(sizes)} sizes, {seeds} seeds, spread {spread}"
    )
    assert min(value, gain) >= 0.88  # 90 %, less chance
