"""A tuned setting's gain is measured apart from the choice; its error rates are simulated.

Without `-m simulation` a few settings are simulated: enough to notice a gross mistake. With it, and
`-s`, the figures of the documentation are printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm

from builders import classes_of, runs, trial_record
from peft_methods.runs import tuning
from peft_methods.runs.results import Result
from peft_methods.runs.tuning_gain import Array, Gain, gain_of
from peft_methods.runs.tuning_grid import RATE, grid_of

ROWS, SETTINGS, SEEDS = 150, 8, 3
FEW, MANY = 300, 4000  # repetitions without and with -m simulation
SHARED = 0.65  # part of the variance of an answer that is the row's difficulty for all settings


@dataclass
class World:
    """Settings with true accuracies; `suits` is the variance of how well a row suits a setting.

    Seeds spread by 1.6 points. A model's answers are right below a level, on the probit scale.
    `short` are the accuracies in trials, if these differ because they are short.
    """

    accuracies: tuple[float, ...]
    suits: float
    rows: int = ROWS
    short: tuple[float, ...] = ()

    def models(self, rng: np.random.Generator) -> Callable[[int], Any]:
        """Draw the rows; the function trains one model of a setting and returns its scores."""
        rng = np.random.default_rng(rng.integers(2**32))
        shared = rng.normal(0, (SHARED - self.suits) ** 0.5, self.rows)
        own = rng.normal(0, self.suits**0.5, (len(self.accuracies), self.rows))
        spread = 0.016 / norm.pdf(ndtri(0.8))
        full, short = (
            ndtri(levels) * (1 + spread**2) ** 0.5
            for levels in (self.accuracies, self.short or self.accuracies)
        )

        def train(setting: int, *, is_short: bool = False) -> Any:
            chance = rng.normal(0, (1 - SHARED) ** 0.5, self.rows)
            reach = (short if is_short else full)[setting] + rng.normal(0, spread)
            return (shared + own[setting] + chance < reach).astype(float)

        return train

    def chosen(self, rng: np.random.Generator) -> tuple[int, float, Gain | None]:
        """Return the best trial, its advantage in the trials, and its gain; as `Search` does."""
        train = self.models(rng)
        trials = np.array([train(one, is_short=True) for one in range(len(self.accuracies))])
        best = int(trials.mean(1).argmax())
        found = [np.array([train(one) for _ in range(SEEDS)]) for one in (0, best)]
        advantage = trials[best] - trials[0]
        return (
            best,
            float(advantage.mean()),
            gain_of(advantage, *found, len(trials) - 1) if best else None,
        )


def rates_of(world: World, repetitions: int) -> dict[str, float]:
    """Return, in % or points: mean advantage in the trials, mean gain, and shares of searches.

    The shares: the own setting was replaced, by the last setting (right), and the gain's interval
    contains the true difference (covered). If no trial was better than the own setting, the gain is
    0 and there is no interval.
    """
    rng = np.random.default_rng(3)
    found = [world.chosen(rng) for _ in range(repetitions)]
    true = np.array(world.accuracies) - world.accuracies[0]
    measured = [(best, gain) for best, _, gain in found if gain is not None]
    last = len(true) - 1
    replaced = [best for best, gain in measured if gain.is_beyond_chance]
    covered = [gain.low <= true[best] <= gain.high for best, gain in measured]
    rates = {
        "advantage": np.mean([advantage for _, advantage, _ in found]),
        "gain": sum(gain.value for _, gain in measured) / repetitions,
        "replaced": len(replaced) / repetitions,
        "right": replaced.count(last) / repetitions,
        "covered": np.mean(covered),
    }
    return {name: 100 * float(value) for name, value in rates.items()}


EQUAL = (0.8,) * SETTINGS
ONE_BETTER = (*(0.8,) * (SETTINGS - 1), 0.88)


@pytest.mark.parametrize("suits", [0.0, 0.2])
def test_eight_equal_settings_gain_nothing_and_are_rarely_replaced(suits: float) -> None:
    """Their best trial is about four points ahead by chance."""
    rates = rates_of(World(EQUAL, suits), FEW)
    assert rates["advantage"] > 3, rates
    assert abs(rates["gain"]) < 0.5, rates
    assert rates["replaced"] <= 5, rates


def test_a_setting_that_is_eight_points_better_is_found_mostly() -> None:
    rates = rates_of(World(ONE_BETTER, 0.1), FEW)
    assert rates["right"] > 50, rates
    assert rates["covered"] > 85, rates


def test_a_setting_that_is_better_in_short_trials_only_is_rarely_chosen() -> None:
    """A high rate, whose schedule ends with the trial, may lead there by eight points."""
    rates = rates_of(World(EQUAL, 0.1, short=ONE_BETTER), FEW)
    assert rates["advantage"] > 7, rates
    assert rates["replaced"] <= 5, rates


@pytest.mark.simulation
@pytest.mark.parametrize("rows", [150, 600, 2000])
@pytest.mark.parametrize("suits", [0.0, 0.1, 0.2])
def test_error_rates(rows: int, suits: float) -> None:
    equal = rates_of(World(EQUAL, suits, rows), MANY)
    better = rates_of(World(ONE_BETTER, suits, rows), MANY // 4)
    biased = rates_of(World(EQUAL, suits, rows, ONE_BETTER), MANY // 4)
    for name, rates in (("equal", equal), ("one 8 points better", better), ("short", biased)):
        figures = ", ".join(f"{key} {value:.2f}" for key, value in rates.items())
        print(f"\n{rows} rows, suits {suits}, {name}: {figures}")
        assert rates["covered"] >= 88
    assert equal["replaced"] <= 5
    assert abs(equal["gain"]) < 0.5
    assert better["right"] > 50
    assert biased["replaced"] <= 6  # 5 with the chance of 1,000 simulations


def test_gain_of_rows_that_all_agree_is_not_certain() -> None:
    same = np.ones((3, 50))
    gain = gain_of(np.zeros(50), same, same, 3)
    assert gain.value == 0
    assert gain.low < 0 < gain.high


def half_repeated(better: int, worse: int, others: int) -> tuple[Array, Gain]:
    """Return a trial's differences from the own one on 400 rows, and the gain of new runs.

    The new runs repeat half of what the trial showed on every row.
    """
    trial = np.repeat([1.0, -1.0, 0.0], [better, worse, 400 - better - worse])
    own = np.tile(np.where(trial == 0, 0.5, 0.25), (3, 1))
    return trial, gain_of(trial, own, own + 0.5 * trial, others)


def test_luck_of_the_choosing_rows_is_subtracted() -> None:
    """Five points ahead: so much is the best of seven equal settings by luck, so all of it is."""
    trial, gain = half_repeated(65, 45, others=7)
    assert trial.mean() == 0.05
    assert gain.value == pytest.approx(0, abs=1e-3)


def test_more_is_not_subtracted_than_luck_can_have_given() -> None:
    trial, gain = half_repeated(100, 20, others=7)
    assert trial.mean() == 0.2
    assert 0.05 < gain.value < 0.1  # the new runs' own difference is 0.1
    assert gain.is_beyond_chance
    few = half_repeated(100, 20, others=1)[1]
    assert gain.value < few.value < 0.1  # the better of two is less lucky than the best of eight


def test_gain_of_a_single_row_is_unknown() -> None:
    gain = gain_of(np.ones(1), np.zeros((2, 1)), np.ones((2, 1)), 1)
    assert not gain.is_beyond_chance


def search_in(world: World, recipe: Path, rng: np.random.Generator) -> tuning.Search:
    """Tune for eight trials; the settings of the world are the distinct ones that are tried."""
    run, *_ = runs(recipe, "lora")
    train = world.models(rng)
    numbers = {run.method.learning_rate: 0}

    def results(asked: Any) -> list[Result]:
        found: list[Result] = []
        for one in asked:
            number = numbers.setdefault(one.method.learning_rate, len(numbers))
            scores = train(number)
            found.append((trial_record(one, float(scores.mean())), classes_of(scores)))
        return found

    return tuning.tune({"it": run}, SETTINGS, results)["it"]


@pytest.mark.slow
def test_searches_with_equal_settings_keep_the_recipes_own(tiny_recipe: Path) -> None:
    rng = np.random.default_rng(1)
    found = [search_in(World(EQUAL, 0.1), tiny_recipe, rng) for _ in range(200)]
    gains = [one.confirmation["gain"] if one.confirmation else 0.0 for one in found]
    replaced = [one.winner()[RATE] != one.run.method.learning_rate for one in found]
    assert abs(np.mean(gains)) < 0.005
    assert np.mean(replaced) <= 0.05


def test_search_finds_a_much_better_setting(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    world = World((*(0.7,) * (SETTINGS - 1), 0.95), 0.1)
    search = search_in(world, tiny_recipe, np.random.default_rng(1))
    assert search.winner()[RATE] == search.finished[-1]["settings"][RATE]
    assert search.winner()[RATE] in grid_of(run.recipe, run.method)[RATE]
    assert search.winner()[RATE] != run.method.learning_rate
