"""Metrics and messages of the profiler, and its errors when memory runs out."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from peft_methods.profiling.memory_peaks import TRAINING
from peft_methods.profiling.metrics import METRICS
from peft_methods.profiling.oom_advice import OOM_ADVICE, PHASE_ACTIVITIES
from peft_methods.profiling.phases import PHASES, Interval
from peft_methods.profiling.profiler import Profiler
from peft_methods.training.engine import EpochResult
from peft_methods.utils.errors import OutOfMemory


def ignore(message: dict[str, Any]) -> None:
    pass


def test_instruments_return_every_metric_or_none_on_a_cpu() -> None:
    messages: list[dict[str, Any]] = []
    profiler = Profiler("cpu", messages.append, epochs=1)
    profiler.rows = 24
    with profiler.running():
        for phase in ("load", "warm_up", "train"):
            profiler.enter(phase)
        for step in (1, 2, 3):
            profiler.step(1, step, 3)
        profiler.enter("evaluate")
        profiler.epoch(EpochResult(1, 0.5, 0.4, 0.9, 0.9))
        profiler.enter(None)
    metrics = profiler.metrics()
    assert set(metrics) <= set(METRICS)
    assert (metrics["step_median_seconds"] or 0) >= 0
    assert metrics["peak_memory_bytes"] == metrics["train_allocated_bytes"]
    assert (
        metrics["energy_joules"]
        is metrics["weights_bytes"]
        is metrics["train_reserved_bytes"]
        is None
    )
    # The next two steps follow too soon to be reported.
    (step,) = [message for message in messages if message.get("step") == 1]
    assert (step["epoch"], step["epochs"], step["steps"]) == (1, 1, 3)
    assert step["samples_per_second"] > 0
    assert messages[0] == {"activity": "loading the model"}
    last = messages[-1]
    assert (last["train_loss"], last["validation_accuracy"], last["step"]) == (0.5, 0.9, 3)
    assert last["samples_per_second"] == pytest.approx(24 / profiler.meter.seconds("train"))
    assert last["peak_memory_bytes"] == metrics["peak_memory_bytes"]
    assert profiler.environment()["gpu"] is None


class EnergyCounter:
    """A sensor that returns this energy at each reading."""

    def __init__(self, joules: float) -> None:
        self.joules = joules

    def start(self) -> None:
        pass

    def read(self) -> float:
        return self.joules


@pytest.mark.parametrize(("joules", "found"), [(0.0, None), (2.5, 2.5)])
def test_training_too_short_for_the_counter_has_no_energy(joules: float, found: Any) -> None:
    profiler = Profiler("cpu", lambda news: None, epochs=1)
    profiler.meter._sensors = {"energy": EnergyCounter(joules)}
    with profiler.running():
        profiler.enter("train")
        profiler.enter(None)
    assert profiler.metrics()["energy_joules"] == found


def test_training_peak_excludes_captured_steps() -> None:
    """A captured step has a second stream, and so a second cuBLAS workspace.

    In a small model the workspaces need more memory than the activations.
    """
    profiler = Profiler("cpu", ignore, epochs=1)
    profiler.meter.intervals += [Interval("warm_up", 1.0, 100), Interval("train", 1.0, 200)]
    training = profiler.meter.intervals[1]
    assert profiler.metrics()["peak_memory_bytes"] == profiler.method_peak_bytes(training) == 200
    profiler.meter.intervals.insert(1, Interval("capture", 1.0, 300))
    assert profiler.metrics()["peak_memory_bytes"] == 100
    assert profiler.method_peak_bytes(training) is None


@pytest.mark.parametrize(
    ("phase", "activity", "advice"),
    [
        ("data", "reading the data", "set data.train = N"),
        ("prepare", "trying the model", "set budget.batch_size = N"),
        ("load", "loading the model", "qlora"),
        ("tokenize", "tokenizing", "set data.train = N"),
        ("train", "training", "budget.batch_size"),
        ("warm_up", "training", "budget.gradient_checkpointing"),
        ("evaluate", "evaluating", "budget.evaluation_batch_size"),
        ("check", "comparing weights", "a smaller model"),
        ("save", "saving", "a smaller model"),
        ("infer", "timing inference", "data.max_length"),
    ],
)
def test_out_of_memory_error_names_phase_size_and_advice(
    phase: str, activity: str, advice: str
) -> None:
    profiler = Profiler("cpu", ignore, epochs=1)
    profiler.enter(phase)
    with pytest.raises(OutOfMemory) as caught, profiler.running():
        torch.empty(2**55, dtype=torch.uint8)
    message = str(caught.value)
    assert f"out of memory while {activity}" in message
    assert str(2**55) in message
    assert advice in message
    assert "\n" not in message
    assert caught.value.setting


def test_every_phase_but_training_has_an_activity_and_oom_advice() -> None:
    assert set(PHASE_ACTIVITIES) == set(OOM_ADVICE) == {*PHASES, "prepare"} - set(TRAINING)


def test_running_does_not_change_other_errors() -> None:
    with pytest.raises(ZeroDivisionError), Profiler("cpu", ignore, epochs=1).running():
        _ = 1 / 0


def test_evaluation_peak_excludes_tensors_that_the_engine_keeps() -> None:
    found = []
    for kept in ([], [torch.zeros(200), torch.zeros(50)]):
        profiler = Profiler("cpu", ignore, epochs=1)
        profiler.record_engine_tensors(kept)
        profiler.meter.intervals.append(Interval("evaluate", 1.0, 5000))
        found.append(profiler.metrics()["evaluate_allocated_bytes"])
    assert found == [5000, 4000]


def test_instruments_keep_the_engines_tensors_alive() -> None:
    """Otherwise they would be subtracted from a later peak that does not include them."""
    profiler, kept = Profiler("cpu", ignore, epochs=1), torch.zeros(1)
    profiler.record_engine_tensors([kept])
    reference = weakref.ref(kept)
    del kept
    assert reference() is not None
    del profiler
    gc.collect()
    assert reference() is None
