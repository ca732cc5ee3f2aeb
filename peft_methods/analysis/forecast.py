"""The quality that the next doubling of the training rows probably brings.

The error of a method is fitted by an inverse power law of the training rows n, error = a + b n^-c
with a, b, c >= 0: Hestness et al., "Deep learning scaling is predictable, empirically" (2017).
It is among the laws that fit most learning curves well, but not all of them: Viering & Loog, "The
shape of learning curves: a review" (2022).

**Interval**: a parametric bootstrap over seeds and test examples (Efron & Tibshirani, "An
introduction to the bootstrap", 1993). The errors at all sizes are drawn again and fitted again.
Their variance over examples is shared by the sizes, since all sizes are tested on the same ones.
Their variance over seeds is that of the comparison, moderated by all methods and sizes. It is drawn
from Student's t, since few seeds know it badly, and independently for each size. Resampling three
seeds would give intervals that are too narrow.

The coverage is measured by `pytest tests/analysis/test_forecast.py -m simulation -s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from peft_methods.analysis.samples import Array, Sample, variance_over_examples
from peft_methods.analysis.seed_variance import SeedVariance, common_variance
from peft_methods.analysis.significance import on_own_level

SIZES_NEEDED = 3  # as many as the law has parameters
WIDEST = 0.10  # interval of the gain, and half the one of the value; wider ones help no decision
DRAWS = 2000
OUTSIDE = 0.02  # share of the draws outside an interval; with 0.05, it may hold in 86 % only
EXPONENTS = np.geomspace(0.05, 4, 45)  # tried values of c
MISFIT = 3.5  # standard errors between the law and the measured error at one size


class NoForecast(Enum):
    """Reason why there is no forecast for a method."""

    FEW_SIZES = "few_sizes"  # fewer than the law has parameters
    NOT_COMPARED = "not_compared"  # one seed, other test examples, or no predictions at some size
    NO_LIMIT = "no_limit"  # the metric has no best possible value, so there is no error
    MISFIT = "misfit"  # quality does not follow the law, for example because it falls
    VAGUE = "vague"  # the interval is so wide that it says nothing


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + scale * (n / rows) ** -exponent; `rows` is the largest size."""

    floor: float
    scale: float
    exponent: float
    rows: int

    def error(self, rows: Array) -> Array:
        """Return the error after training on so many rows."""
        return np.asarray(self.floor + self.scale * (rows / self.rows) ** -self.exponent)


@dataclass(frozen=True)
class Forecast:
    """The metric after training on `rows`, twice the largest size, with 95 % intervals.

    `value` is the metric itself and `gain` how much better it is than at the largest size; both are
    in the metric's unit, 0..1 for a share. The law never falls, so no gain is below 0. `best` is
    the best possible value, which the law's error counts from.
    """

    rows: int
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    law: PowerLaw
    best: float


def forecasts(
    sizes: Sequence[int],
    samples: Mapping[str, Sequence[Sample]],
    best: float | None,
    *,
    higher_is_better: bool = True,
) -> dict[str, Forecast | NoForecast]:
    """Forecast each method's metric at twice the largest size, or say why not.

    `sizes` are ascending; `samples` has one sample per size for each method, or fewer if it is not
    compared at some size. `best` is the metric's best possible value; None if it has none.
    """
    whole = {name: own for name, own in samples.items() if _is_whole(own, len(sizes))}
    common = common_variance([one for own in whole.values() for one in own]) if whole else None
    found: dict[str, Forecast | NoForecast] = {}
    for name in samples:
        if len(sizes) < SIZES_NEEDED:
            found[name] = NoForecast.FEW_SIZES
        elif common is None or name not in whole:
            found[name] = NoForecast.NOT_COMPARED
        elif best is None:
            found[name] = NoForecast.NO_LIMIT
        else:
            sign = 1 if higher_is_better else -1
            found[name] = _forecast(sizes, whole[name], common, best, sign)
    return found


def _is_whole(samples: Sequence[Sample], sizes: int) -> bool:
    return len(samples) == sizes and all(sample.seeds > 1 for sample in samples)


def _forecast(
    sizes: Sequence[int], samples: Sequence[Sample], common: SeedVariance, best: float, sign: int
) -> Forecast | NoForecast:
    errors = np.asarray([sign * (best - float(sample.mean)) for sample in samples])
    noise, variance = _noise(samples, common)
    ratios = np.asarray(sizes) / sizes[-1]
    (floor,), (scale,), (exponent,) = fit(ratios, errors[None], 1 / variance)
    law = PowerLaw(float(floor), float(scale), float(exponent), sizes[-1])
    if (abs(law.error(np.asarray(sizes)) - errors) > MISFIT * np.sqrt(variance)).any():
        return NoForecast.MISFIT
    floors, scales, exponents = fit(ratios, errors + noise, 1 / variance)
    after = floors + scales * 2.0**-exponents
    gains = floors + scales - after
    doubled = float(law.error(np.asarray(2 * sizes[-1])))
    gain = law.floor + law.scale - doubled
    least, most = _interval(after, doubled)
    gain_low, gain_high = _interval(gains, gain)
    if max(gain_high - gain_low, (most - least) / 2) > WIDEST:
        return NoForecast.VAGUE
    low, high = sorted((best - sign * least, best - sign * most))
    return Forecast(
        2 * sizes[-1],
        best - sign * doubled,
        low,
        high,
        gain,
        gain_low,
        gain_high,
        law,
        best,
    )


def _interval(drawn: Array, estimate: float) -> tuple[float, float]:
    """Return the interval of a value that is not below 0, from its bootstrap draws.

    It covers the percentile interval and the basic one, which is its reflection at the estimate: a
    law that may not fall makes the draws biased, and so is each of the two.
    """
    low, high = np.percentile(drawn, [100 * OUTSIDE / 2, 100 * (1 - OUTSIDE / 2)])
    ends = (low, high, 2 * estimate - low, 2 * estimate - high)
    return max(float(min(ends)), 0.0), float(max(ends))


def _noise(samples: Sequence[Sample], common: SeedVariance) -> tuple[Array, Array]:
    """Return draws of the errors' deviations (draws, sizes), and their variance (sizes)."""
    rng = np.random.default_rng(0)
    by_example = np.stack([sample.by_example for sample in samples])
    covariance = np.atleast_2d(np.cov(by_example)) / by_example.shape[-1]
    least = np.asarray(
        [variance_over_examples(one.by_example, one.scale).variance for one in samples]
    )
    unseen = np.maximum(least - np.diag(covariance), 0)
    covariance = covariance + np.diag(unseen)
    moderated = [on_own_level(sample, common) for sample in samples]
    over_seeds = np.asarray(
        [
            max(float(one.variance), float(sample.seed_variance)) / sample.seeds
            for one, sample in zip(moderated, samples, strict=True)
        ]
    )
    freedom = np.asarray([float(one.freedom) for one in moderated])
    shape = DRAWS, len(samples)
    students = rng.standard_normal(shape) / np.sqrt(rng.chisquare(freedom, shape) / freedom)
    of_examples = rng.multivariate_normal(np.zeros(len(samples)), covariance, DRAWS)
    return of_examples + np.sqrt(over_seeds) * students, np.diag(covariance) + over_seeds


def fit(ratios: Array, errors: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Fit the power law to each line of errors (lines, sizes) by weighted least squares.

    `ratios` (sizes) are the training rows divided by those of the largest size. Returns floors,
    scales and exponents (lines). For a given exponent, floor and scale are those of a linear
    regression that allows no negative ones.
    """
    x = ratios ** -EXPONENTS[:, None]  # (exponents, sizes)
    w, wx, wxx = weights.sum(), x @ weights, x**2 @ weights
    wy, wxy = (errors @ weights)[:, None], errors @ (x * weights).T  # (lines, exponents)
    scale = (w * wxy - wx * wy) / (w * wxx - wx**2)
    scale = np.where(wy < scale * wx, wxy / wxx, scale)  # the floor would be negative
    scale = np.maximum(scale, 0)
    floor = np.maximum((wy - scale * wx) / w, 0)
    misfit = floor**2 * w + scale**2 * wxx + 2 * (floor * scale * wx - floor * wy - scale * wxy)
    best = misfit.argmin(axis=1)[:, None]
    chosen = [np.take_along_axis(one, best, axis=1)[:, 0] for one in (floor, scale)]
    return chosen[0], chosen[1], EXPONENTS[best[:, 0]]
