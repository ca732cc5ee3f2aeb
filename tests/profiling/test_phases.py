"""The phase meter: time, memory and sensors by phase. Units of metrics."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.profiling.memory import ResidentMemory
from peft_methods.profiling.metrics import COST_METRICS, METRICS
from peft_methods.profiling.phases import PhaseMeter

UNITS = ("_seconds", "_bytes", "_per_second", "_parameters", "_joules", "_tokens")
SHARES = {
    "scaling_efficiency",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "validation_accuracy",
    "trainable_share",
    "busy_share",
    "padding_share",
    "model_flops_utilization",
}


class FakeMemory:
    """A memory counter set by hand. Its peak is the highest value since the last reset."""

    kind = "fake"

    def __init__(self) -> None:
        self.now = self.highest = 0

    def use(self, size: int) -> None:
        self.now = size
        self.highest = max(self.highest, size)

    def reset(self) -> None:
        self.highest = self.now

    def level(self) -> int:
        return self.now

    def peak(self) -> int:
        return self.highest


def test_every_metric_names_its_unit_or_is_a_share() -> None:
    for name, metric in METRICS.items():
        # Qualities have a unit of their own: nats, or that of the labels.
        assert name in SHARES or name.endswith(UNITS) or metric not in COST_METRICS
        assert metric.higher_is_better in {True, False, None}
        assert re.search(r"\d", metric.format(0.5))


@given(
    st.lists(
        st.tuples(st.sampled_from(["load", "train", "evaluate"]), st.integers(0, 50)),
        min_size=1,
        max_size=20,
    )
)
def test_phase_meter_assigns_every_moment_to_one_phase(stretches: list[tuple[str, int]]) -> None:
    now = [0.0]
    meter = PhaseMeter(FakeMemory(), clock=lambda: now[0])
    for phase, seconds in stretches:
        meter.enter(phase)
        now[0] += seconds
    meter.enter(None)
    for name in ("load", "train", "evaluate"):
        assert meter.seconds(name) == sum(s for phase, s in stretches if phase == name)
    assert sum(i.seconds for i in meter.intervals) == now[0]


def test_phase_meter_resets_the_peak_at_each_phase() -> None:
    memory = FakeMemory()
    meter = PhaseMeter(memory)
    meter.enter("load")
    memory.use(900)
    memory.use(100)
    meter.enter("train")
    memory.use(300)
    memory.use(50)
    meter.enter("evaluate")
    memory.use(700)
    meter.enter(None)
    assert (
        meter.peak("load"),
        meter.peak("train"),
        meter.peak("evaluate"),
        meter.peak("save"),
    ) == (900, 300, 700, None)


def test_peak_that_is_forgotten_does_not_count() -> None:
    memory = FakeMemory()
    meter = PhaseMeter(memory)
    meter.enter("warm_up")
    memory.use(900)
    memory.use(100)
    meter.forget_peak()
    memory.use(300)
    meter.enter(None)
    assert meter.peak("warm_up") == 300


def test_phase_meter_synchronizes_only_between_phases() -> None:
    calls: list[int] = []
    meter = PhaseMeter(FakeMemory(), synchronize=lambda: calls.append(1))
    for phase in ("load", "train", None):
        meter.enter(phase)
    assert len(calls) == 3


def test_resident_memory_measures_an_array_until_it_is_freed() -> None:
    memory = ResidentMemory()
    meter = PhaseMeter(memory)
    meter.enter("load")  # returns memory freed by earlier tests to the system
    meter.set_base_level()
    big = np.ones(40 * 2**20, dtype=np.uint8)
    meter.enter("train")
    assert big.any()
    del big
    meter.enter("evaluate")
    meter.enter(None)
    load, evaluate = meter.peak("load"), meter.peak("evaluate")
    assert load is not None
    assert evaluate is not None
    assert load > 35 * 2**20
    if memory.can_reset:
        assert evaluate < load - 30 * 2**20


class FakeSensor:
    """A counter set by hand; None if it cannot be read."""

    def __init__(self) -> None:
        self.now: float | None = 0.0
        self._start: float | None = 0.0

    def start(self) -> None:
        self._start = self.now

    def read(self) -> float | None:
        return None if self.now is None or self._start is None else self.now - self._start


def test_gauges_are_read_by_phase_and_missing_readings_give_none() -> None:
    sensor = FakeSensor()
    meter = PhaseMeter(FakeMemory(), sensors={"energy": sensor})
    for phase, value in (("load", 5.0), ("train", 12.0), ("evaluate", 13.0), ("train", 20.0)):
        meter.enter(phase)
        sensor.now = value
    meter.enter(None)
    assert meter.total("energy", "train") == 7.0 + 7.0
    assert meter.highest("energy", "load", "evaluate") == 5.0
    assert meter.total("energy", "save") is None
    assert meter.total("nothing", "train") is None
    meter.enter("train")
    sensor.now = None
    meter.enter(None)
    assert meter.total("energy", "train") is None
