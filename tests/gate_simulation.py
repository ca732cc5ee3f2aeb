"""Simulated sessions whose true changes are known, judged as the regression check does.

All sessions of a scene are simulated at once, as arrays (repetitions, seeds). The decision is that
of `metric_comparison`, which the regression check calls with the values of its records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peft_methods.analysis.metric_comparison import MetricComparison, Runs, compare, family_of
from peft_methods.analysis.samples import Array
from peft_methods.analysis.tolerances import default_tolerances

METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter", "adapter_fusion")
TOLERANCES = default_tolerances("accuracy")
Session = dict[str, dict[str, Runs]]  # by method and metric
Failures = dict[tuple[str | None, str], NDArray[np.bool_]]  # by method and metric; None: all


@dataclass(frozen=True)
class Scene:
    """Noise of unchanged sessions: standard deviations, time relative and quality in points.

    `drift` is what the times of a session have in common, or of each run alone if `of_runs`; `own`
    is the drift of each method alone, which no pace shows.
    `noise` is between the times of runs in a session. With `pace` the drift shows in the
    calibration loop, too, whose own noise is `pace_noise`. The first method's spread between seeds
    is `wild` times as large.
    """

    methods: int = 8
    seeds: int = 3
    sessions: int = 1
    spread: float = 1.0
    drift: float = 0.05
    noise: float = 0.015
    own: float = 0.0
    of_runs: bool = False
    pace: bool = False
    pace_noise: float = 0.02
    wild: float = 1.0

    def __str__(self) -> str:
        wild = f" (first: x {self.wild:g})" if self.wild > 1 else ""
        pace = f", pace with a noise of {self.pace_noise:.0%}" if self.pace else ""
        return (
            f"{self.methods} methods, seeds {self.seeds}, sessions {self.sessions}, "
            f"spread {self.spread:g} points{wild}, "
            f"drift {self.drift:.0%}{' of each run' if self.of_runs else ''}"
            f"{f', {self.own:.0%} of each method' if self.own else ''}{pace}"
        )


@dataclass(frozen=True)
class Truth:
    """What really changed: points of quality and share of time, in the first or all methods."""

    points: float = 0.0
    time: float = 0.0
    in_all: bool = False


UNCHANGED = Truth()


def session(
    scene: Scene, rng: np.random.Generator, repetitions: int, truth: Truth = UNCHANGED
) -> Session:
    """Return one session of each repetition, by method and metric."""
    shape = (repetitions, scene.seeds)
    common = scene.drift * rng.standard_normal((repetitions, 1))
    found = {}
    for place, method in enumerate(METHODS[: scene.methods]):
        changed = truth.in_all or place == 0
        spread = scene.spread * (scene.wild if place == 0 else 1) / 100
        accuracy = 0.85 - changed * truth.points / 100 + spread * rng.standard_normal(shape)
        own = scene.drift * rng.standard_normal(shape) if scene.of_runs else common
        noise = 1 + scene.noise * rng.standard_normal(shape)
        alone = 1 + scene.own * rng.standard_normal((repetitions, 1))
        seconds = (10 + place) * (1 + own) * alone * (1 + changed * truth.time) * noise
        pace = 0.05 * (1 + own) * (1 + scene.pace_noise * rng.standard_normal(shape))
        found[method] = {
            "accuracy": Runs(accuracy),
            "peak_memory_bytes": Runs(np.full(shape, 2.0**28 * (1 + place))),
            "train_seconds": Runs(seconds, pace if scene.pace else None),
        }
    return found


def failures(before: list[Session], now: Session) -> Failures:
    """Judge every metric of sessions against the sessions of their baselines, as the check does."""
    found: Failures = {}
    for tolerance in TOLERANCES:
        metric = tolerance.metric
        names = [one.metric for one in TOLERANCES]
        one = compare(
            tolerance,
            {method: [earlier[method][metric] for earlier in before] for method in now},
            {method: values[metric] for method, values in now.items()},
            family_of(metric, names, len(now)),
        )
        common = one.common()
        if common is not None:
            found[None, metric] = common.fails(tolerance)
        for method in now:
            found[method, metric] = method_fails(one, method)
    return found


def method_fails(one: MetricComparison, method: str) -> NDArray[np.bool_]:
    """Whether a method fails by itself or against the others, in each repetition."""
    judged = [one.of_method(method), one.relative(method)]
    fails = [change.fails(one.tolerance) for change in judged if change is not None]
    return np.logical_or.reduce(fails)


def rate(scene: Scene, truth: Truth, repetitions: int, seed: int = 8) -> float:
    """Share of sessions that fail: any for an unchanged one, else in the metric that changed.

    If one method changed, it must be the one that is named.
    """
    rng = np.random.default_rng(seed)
    before = [session(scene, rng, repetitions) for _ in range(scene.sessions)]
    found = failures(before, session(scene, rng, repetitions, truth))
    metric = "accuracy" if truth.points else "train_seconds"
    if truth == UNCHANGED:
        hits = list(found.values())
    elif truth.in_all:
        hits = [fails for (_, what), fails in found.items() if what == metric]
    else:
        hits = [found[METHODS[0], metric]]
    return float(np.logical_or.reduce(hits).mean())


def values_of_repetition(one: Session, repetition: int) -> dict[str, dict[str, Array]]:
    """Return the values of each seed of one repetition, by method and metric, with the pace."""
    found = {}
    for method, metrics in one.items():
        found[method] = {metric: runs.values[repetition] for metric, runs in metrics.items()}
        if (pace := metrics["train_seconds"].pace) is not None:
            found[method]["pace_seconds"] = pace[repetition]
    return found
