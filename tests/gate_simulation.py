"""Simulated sessions whose true changes are known, judged by the whole regression check."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from builders import make_record
from peft_methods.analysis.baseline import Baseline, Entry
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.runs.record import Record

METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter", "adapter_fusion")


@dataclass(frozen=True)
class Scene:
    """Noise of unchanged sessions: standard deviations, time relative and quality in points.

    `drift` is what the times of a session have in common, or of each run alone if `of_runs`.
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
    of_runs: bool = False
    pace: bool = False
    pace_noise: float = 0.02
    wild: float = 1.0

    def __str__(self) -> str:
        return (
            f"{self.methods} methods, seeds {self.seeds}, sessions {self.sessions}, "
            f"spread {self.spread:g} points{f' (first: x {self.wild:g})' if self.wild > 1 else ''},"
            f" drift {self.drift:.0%}{' of each run' if self.of_runs else ''}"
            f"{', pace' if self.pace else ''}"
        )


@dataclass(frozen=True)
class Truth:
    """What really changed: points of quality and share of time, in the first or all methods."""

    points: float = 0.0
    time: float = 0.0
    in_all: bool = False


UNCHANGED = Truth()


@cache
def _record(method: str) -> Record:
    record = make_record(method)
    return replace(record, environment={**record.environment, "packages": {}})


def _session(scene: Scene, rng: np.random.Generator, truth: Truth = UNCHANGED) -> dict[str, Any]:
    """Metrics by method, a value per seed."""
    drift = scene.drift * (0 if scene.of_runs else rng.standard_normal())
    found = {}
    for place, method in enumerate(METHODS[: scene.methods]):
        changed = truth.in_all or place == 0
        spread = scene.spread * (scene.wild if place == 0 else 1) / 100
        accuracy = 0.85 - changed * truth.points / 100 + spread * rng.standard_normal(scene.seeds)
        own = drift + (scene.drift * rng.standard_normal(scene.seeds) if scene.of_runs else 0)
        noise = 1 + scene.noise * rng.standard_normal(scene.seeds)
        seconds = (10 + place) * (1 + own) * (1 + changed * truth.time) * noise
        found[method] = {
            "accuracy": accuracy.tolist(),
            "peak_memory_bytes": [2.0**28 * (1 + place)] * scene.seeds,
            "train_seconds": seconds.tolist(),
        }
        if scene.pace:
            measured = 1 + scene.pace_noise * rng.standard_normal(scene.seeds)
            found[method]["pace_seconds"] = (0.05 * (1 + own) * measured).tolist()
    return found


def _entry(method: str, metrics: dict[str, Any], earlier: tuple[Entry, ...]) -> Entry:
    record, seeds = _record(method), tuple(range(len(metrics["accuracy"])))
    values = {name: tuple(found) for name, found in metrics.items()}
    flat, data = _flat(method), record.data
    return Entry("embedded", method, seeds, values, flat, data, record.environment, earlier)


@cache
def _flat(method: str) -> dict[str, str]:
    return _record(method).spec.flat()


def _records(metrics: dict[str, dict[str, Any]]) -> Iterator[Record]:
    for method, values in metrics.items():
        for seed in range(len(values["accuracy"])):
            record = copy.copy(_record(method))  # `replace` would search it for secrets again
            one = {name: found[seed] for name, found in values.items()}
            object.__setattr__(record, "metrics", one)
            yield record


def failures(scene: Scene, truth: Truth, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """(method, metric) of every failure of one simulated session against a simulated baseline."""
    sessions = [_session(scene, rng) for _ in range(scene.sessions)]
    entries: dict[tuple[str, str], Entry] = {}
    for method in METHODS[: scene.methods]:
        earlier = tuple(_entry(method, one[method], ()) for one in sessions[:-1])
        entries["embedded", method] = _entry(method, sessions[-1][method], earlier)
    baseline = Baseline(Path("base.json"), "2026-01-01", "c0ffee", entries)
    report = RegressionCheck({"embedded": baseline}).check(_records(_session(scene, rng, truth)))
    return [(entry.method, entry.metric) for entry in report.failures]


def rate(scene: Scene, truth: Truth, repetitions: int, seed: int = 8) -> float:
    """Share of sessions that fail: any for an unchanged one, else in the metric that changed.

    If one method changed, it must be the one that is named.
    """
    rng, hits = np.random.default_rng(seed), 0
    metric = "accuracy" if truth.points else "train_seconds"
    for _ in range(repetitions):
        found = failures(scene, truth, rng)
        if truth == UNCHANGED:
            hits += bool(found)
        elif truth.in_all:
            hits += any(what == metric for _, what in found)
        else:
            hits += (METHODS[0], metric) in found
    return hits / repetitions
