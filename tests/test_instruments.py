"""What is read off a cell, and what it says when memory runs out."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from peft_methods.engines.base import EpochResult
from peft_methods.errors import OutOfMemory
from peft_methods.instruments import DOING, TRAINING, WAYS_OUT, Instruments
from peft_methods.measuring import PHASES, Interval
from peft_methods.metrics import METRICS


def silent(news: dict[str, Any]) -> None:
    pass


def test_on_a_cpu_every_figure_is_there_or_null() -> None:
    told: list[dict[str, Any]] = []
    instruments = Instruments("cpu", told.append, epochs=1)
    instruments.rows = 24
    with instruments.running():
        for phase in ("load", "warm_up", "train"):
            instruments.enter(phase)
        for step in (1, 2, 3):
            instruments.step(1, step, 3)
        instruments.enter("evaluate")
        instruments.epoch(EpochResult(1, 0.5, 0.4, 0.9, 0.9))
        instruments.enter(None)
    figures = instruments.metrics()
    assert set(figures) <= set(METRICS)
    assert (figures["step_median_seconds"] or 0) >= 0
    assert figures["peak_memory_bytes"] == figures["train_allocated_bytes"]
    assert (
        figures["energy_joules"]
        is figures["weights_bytes"]
        is figures["train_reserved_bytes"]
        is None
    )
    (step,) = [
        news for news in told if news.get("step") == 1
    ]  # the next two came too soon to be read
    assert (step["epoch"], step["epochs"], step["steps"]) == (1, 1, 3)
    assert step["samples_per_second"] > 0
    assert told[0] == {"doing": "loading the model"}
    last = told[-1]
    assert (last["train_loss"], last["validation_accuracy"], last["step"]) == (0.5, 0.9, 3)
    assert last["samples_per_second"] == pytest.approx(24 / instruments.meter.seconds("train"))
    assert last["peak_memory_bytes"] == figures["peak_memory_bytes"]
    assert instruments.environment()["gpu"] is None


def test_the_peak_is_the_methods_not_that_of_an_engine_that_replays() -> None:
    """A captured step's memory is that of its stream: matrix workspaces twice over, which in a small model outweigh activations."""
    instruments = Instruments("cpu", silent, epochs=1)
    instruments.meter.intervals += [Interval("warm_up", 1.0, 100), Interval("train", 1.0, 200)]
    training = instruments.meter.intervals[1]
    assert instruments.metrics()["peak_memory_bytes"] == instruments.methods_peak(training) == 200
    instruments.meter.intervals.insert(1, Interval("capture", 1.0, 300))
    assert instruments.metrics()["peak_memory_bytes"] == 100
    assert instruments.methods_peak(training) is None


@pytest.mark.parametrize(
    ("phase", "doing", "way_out"),
    [
        ("data", "reading the data", "data.train=N"),
        ("prepare", "trying the model", "budget.batch_size=N"),
        ("load", "loading the model", "qlora"),
        ("tokenize", "tokenizing", "data.train=N"),
        ("train", "training", "budget.batch_size"),
        ("warm_up", "training", "budget.gradient_checkpointing"),
        ("evaluate", "evaluating", "budget.evaluation_batch_size"),
        ("check", "comparing weights", "a smaller model"),
        ("save", "saving", "a smaller model"),
        ("infer", "timing inference", "data.max_length"),
    ],
)
def test_a_real_failure_to_allocate_names_phase_size_and_way_out(
    phase: str, doing: str, way_out: str
) -> None:
    instruments = Instruments("cpu", silent, epochs=1)
    instruments.enter(phase)
    with pytest.raises(OutOfMemory) as caught, instruments.running():
        torch.empty(2**55, dtype=torch.uint8)
    message = str(caught.value)
    assert f"out of memory while {doing}" in message
    assert str(2**55) in message
    assert way_out in message
    assert "\n" not in message


def test_every_phase_but_trainings_has_its_name_and_its_way_out() -> None:
    assert set(DOING) == set(WAYS_OUT) == {*PHASES, "prepare"} - set(TRAINING)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError), Instruments("cpu", silent, epochs=1).running():
        _ = 1 / 0


def test_what_an_engine_keeps_is_no_part_of_what_judging_takes() -> None:
    found = []
    for kept in ([], [torch.zeros(200), torch.zeros(50)]):
        instruments = Instruments("cpu", silent, epochs=1)
        instruments.engine_keeps(kept)
        instruments.meter.intervals.append(Interval("evaluate", 1.0, 5000))
        found.append(instruments.metrics()["evaluate_allocated_bytes"])
    assert found == [5000, 4000]


def test_what_an_engine_keeps_is_there_as_long_as_figures_are_read() -> None:
    """Or a peak after the engine is gone would lack what is left out of it."""
    instruments, kept = Instruments("cpu", silent, epochs=1), torch.zeros(1)
    instruments.engine_keeps([kept])
    gone = weakref.ref(kept)
    del kept
    assert gone() is not None
    del instruments
    gc.collect()
    assert gone() is None
