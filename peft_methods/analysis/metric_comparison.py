"""One metric of all methods in a baseline and in a session, ready to be judged.

The regression check and its simulation (tests/gate_simulation.py) decide here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peft_methods.analysis.assumptions import (
    BY_PACE,
    TIME,
    assumed_noise,
    drifts,
    noise_by_pace,
    weight,
)
from peft_methods.analysis.noise import Assumed, Group, mean_of
from peft_methods.analysis.samples import Array
from peft_methods.analysis.session_change import Decisions, Family, JudgedChange, MetricNoise
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import METRICS

LEAST_ALONE = 0.5  # of the tolerance: what a method must be worse without regard to the others
LEAST_FREEDOM = 3  # degrees of freedom of the variance of the pace, to know how much it varies


@dataclass(frozen=True)
class Runs:
    """One metric of one method in one session: `values` (..., seeds), in the metric's unit.

    `pace` (..., seeds): seconds of the calibration loop beside each run; None where not measured.
    """

    values: Array
    pace: Array | None = None


@dataclass(frozen=True)
class MetricComparison:
    """One metric of a recipe: its noise, and the session's values by method in the same unit.

    `plain` and `plain_now` are the figures without regard to the pace. `by_pace` (...): the others
    are relative to it.
    """

    tolerance: Tolerance
    noise: MetricNoise
    now: Mapping[str, Group]
    plain: MetricNoise
    plain_now: Mapping[str, Group]
    by_pace: Decisions

    def of_method(self, method: str) -> JudgedChange | None:
        """Return a method's change; None if its noise is unknown."""
        return self.noise.method_change(method, self.now[method])

    def common(self) -> JudgedChange | None:
        """Return the mean change of all methods; None for too few methods."""
        return self.noise.common_change(self.now)

    def relative(self, method: str) -> JudgedChange | None:
        """Return a method's change against the others; None where `relative_change` is.

        The others show the drift better than a pace does, which has a noise of its own. A method
        that is no worse alone has not failed: the others became better.
        """
        found = self.plain.relative_change(method, self.plain_now)
        if found is None:
            return None
        enough = self.alone(method) > LEAST_ALONE * self.tolerance.amount
        return JudgedChange(found.worse, np.where(enough, found.explained, np.inf))

    def alone(self, method: str) -> Array:
        """Return by how much a method is worse without regard to the others (...)."""
        return self.noise.figures(method, self.now[method]).worse


def family_of(metric: str, metrics: Sequence[str], methods: int) -> Family:
    """Return the share of false alarms of a metric among all that are judged."""
    total = sum(map(weight, {*metrics, metric}))
    return Family(max(1, methods), weight(metric) / total, drifts(metric))


def compare(
    tolerance: Tolerance,
    before: Mapping[str, Sequence[Runs]],
    now: Mapping[str, Runs],
    family: Family,
) -> MetricComparison:
    """Compare one metric: `before` has each method's sessions, the newest last.

    The pace is used where all runs have it and it makes the noise smaller.
    """
    values = {name: [one.values for one in sessions] for name, sessions in before.items()}
    today = {name: one.values for name, one in now.items()}
    level = float(np.mean([mean_of(values[name]) for name in now]))
    assumed = assumed_noise(tolerance, level)
    plain, plain_now = _scaled(tolerance, values, today)
    noise = MetricNoise(plain, assumed, family)
    unused = MetricComparison(tolerance, noise, plain_now, noise, plain_now, np.asarray(False))
    if tolerance.metric not in BY_PACE or not _has_pace(before, now):
        return unused
    variance = pace_variance(list(before.values()))
    if variance is None:
        return unused
    relative = noise_by_pace(variance)
    use = np.asarray(_total(relative, now) < _total(TIME, now))
    power = BY_PACE[tolerance.metric]
    paced, paced_now = _scaled(
        tolerance,
        {name: [_at_pace(one, power) for one in sessions] for name, sessions in before.items()},
        {name: _at_pace(one, power) for name, one in now.items()},
    )
    pick = use[..., None]
    chosen = {
        name: tuple(np.where(pick, new, old) for new, old in zip(paced[name], one, strict=True))
        for name, one in plain.items()
    }
    by_pace = Assumed(
        np.where(use, relative.drift, assumed.drift),
        np.where(use, np.asarray(relative.seeds), np.asarray(assumed.seeds)),
        np.where(use, relative.residual, assumed.residual),
    )
    chosen_now = {name: np.where(pick, paced_now[name], one) for name, one in plain_now.items()}
    return MetricComparison(
        tolerance, MetricNoise(chosen, by_pace, family), chosen_now, noise, plain_now, use
    )


def _has_pace(before: Mapping[str, Sequence[Runs]], now: Mapping[str, Runs]) -> bool:
    return all(
        one.pace is not None
        for one in (*now.values(), *(one for sessions in before.values() for one in sessions))
    )


def _at_pace(runs: Runs, power: int) -> Array:
    """Return times in units of the pace, or rates multiplied by it."""
    return runs.values * np.asarray(runs.pace) ** power


def pace_variance(methods: Sequence[Sequence[Runs]]) -> Array | None:
    """Return the relative variance of the pace between the runs of a session (...).

    It is pooled over the sessions; None if they have too few runs. Sessions of different methods
    are matched from the newest backwards.
    """
    squares, freedom = [], 0
    for back in range(1, max(map(len, methods), default=0) + 1):
        paces = [np.asarray(one[-back].pace) for one in methods if len(one) >= back]
        found = np.concatenate(paces, axis=-1)
        if (count := found.shape[-1] - 1) > 0:
            squares.append(count * found.var(-1, ddof=1) / found.mean(-1) ** 2)
            freedom += count
    return np.asarray(sum(squares) / freedom) if freedom >= LEAST_FREEDOM else None


def _total(noise: Assumed, now: Mapping[str, Runs]) -> Array:
    """Return the variance to expect of a method's mean in a session (...)."""
    runs = min(one.values.shape[-1] for one in now.values())
    seeds = 0.0 if noise.seeds is None else noise.seeds
    return np.asarray(np.square(noise.drift) + np.square(seeds) / runs)


def _scaled(
    tolerance: Tolerance, before: Mapping[str, Sequence[Array]], now: Mapping[str, Array]
) -> tuple[dict[str, tuple[Array, ...]], dict[str, Array]]:
    """Return figures by how much they are worse than their method's level in the baseline."""
    levels = {name: mean_of(sessions) for name, sessions in before.items()}
    scaled = {
        name: tuple(worse(tolerance, levels[name], one) for one in sessions)
        for name, sessions in before.items()
    }
    return scaled, {name: worse(tolerance, levels[name], one) for name, one in now.items()}


def worse(tolerance: Tolerance, level: Array, values: Array) -> Array:
    """Return by how much values (..., seeds) are worse than a level (...).

    It is `Tolerance.worse` of each.
    """
    before = np.asarray(level)[..., None]
    change = (values - before) * -METRICS[tolerance.metric].sign()
    if not tolerance.relative:
        return np.asarray(change)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(change == 0, 0.0, change / np.abs(before))
