"""An interrupted run resumes after its last epoch; the result is the same to the bit."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from builders import Recorder, prepared, reproducible_results, run_here, small_runs, training_job
from peft_methods.analysis.comparison import Comparison
from peft_methods.methods.base import TRAINED
from peft_methods.profiling.profiler import Profiler
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.comparison import terminal_table
from peft_methods.runs.checkpoints import Checkpoints
from peft_methods.runs.events import Event
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.plan import run_groups
from peft_methods.runs.record import Record
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.store import Store
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.state import TrainingState
from peft_methods.training.trainer import loop

SMALL = ("data.train=44", "data.validation=10", "data.test=10", "budget.epochs=2")


class Interrupted(Exception):
    """Simulates the end of the process."""


class Measuring(Recorder):
    """An observer that records the steps and may interrupt at one of them."""

    def __init__(self, until: int | None = None) -> None:
        super().__init__()
        self.until = until

    def step(self, epoch: int, step: int, steps: int) -> None:
        super().step(epoch, step, steps)
        if step == self.until:
            raise Interrupted

    def measured(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def take_over(self, measured: dict[str, Any]) -> None:
        self.steps = [tuple(step) for step in measured["steps"]]


def trained(
    recipe_path: Path,
    root: Path,
    name: str,
    *settings: str,
    kind: Any = loop.RunTrainer,
    until: Any = None,
    keep: bool = True,
) -> Any:
    """Train once from the seed.

    Returns the result, the last and the best weights, the steps and the checkpoints.
    """
    ready = recipe, method, _, model, _ = prepared(recipe_path, name, *SMALL, *settings)
    checkpoints = Checkpoints(root, run_specs(recipe, method, "cpu")[0], "key") if keep else None
    (root / "work").mkdir(parents=True, exist_ok=True)
    observer = Measuring(until)
    job = training_job(ready, root / "work")
    training = loop.train(job, observer, checkpoints, trainer_class=kind)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return training, weights, load_file(root / "work" / TRAINED), observer.steps, checkpoints


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(some[name], others[name]) for name in some
    )


LATE = "methods.lora.learning_rate=0.2"  # so high that the second epoch is worse than the first


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        (loop.RunTrainer, "full", ["budget.gradient_accumulation=2"]),
        (
            loop.RunTrainer,
            "lora",
            [
                "methods.lora.dropout=0.2",
                "budget.epochs=9",
                "budget.early_stopping=2",
                "budget.schedule='cosine'",
                LATE,
            ],
        ),
        (loop.RunTrainer, "qlora", ["methods.qlora.dropout=0.1"]),
        (
            loop.RunTrainer,
            "ia3",
            ["budget.padding='fixed'", "methods.ia3.head_learning_rate=1e-3"],
        ),
        (loop.RunTrainer, "adapter", ["budget.precision='bf16'"]),
        (loop.RunTrainer, "adapter_fusion", ["budget.gradient_checkpointing=true"]),
        (CudaGraphsTrainer, "full", ["methods.full.learning_rate=1e-3"]),
        (
            CudaGraphsTrainer,
            "lora",
            ["budget.gradient_accumulation=2", "methods.lora.dropout=0.2"],
        ),
        (CudaGraphsTrainer, "ia3", ["budget.precision='bf16'"]),
        (loop.RunTrainer, "bitfit", ["model.weights='random'"]),
    ],
)
def test_resumed_training_equals_uninterrupted_training(  # noqa: PLR0917  # three fixtures, three parameters
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    name: str,
    settings: list[str],
) -> None:
    monkeypatch.setattr(CudaGraphsTrainer, "compile_layers", False)
    whole, weights, best, steps, _ = trained(
        tiny_recipe, tmp_path / "whole", name, *settings, kind=kind, keep=False
    )
    with pytest.raises(Interrupted):
        trained(tiny_recipe, tmp_path / "cut", name, *settings, kind=kind, until=whole.steps - 1)
    torch.rand(5)  # another process has used the random numbers differently
    again, got, kept, seen, checkpoints = trained(
        tiny_recipe, tmp_path / "cut", name, *settings, kind=kind
    )
    assert again == whole
    assert same(got, weights)
    assert same(kept, best)
    assert seen == steps
    assert checkpoints.resumed_after == [len(whole.epochs) - 1]
    assert len(list(checkpoints.folder.iterdir())) == 1


def test_resumed_training_stays_stopped_after_early_stopping(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """The process died between the last epoch and the record."""
    early = ("budget.epochs=9", "budget.early_stopping=1", LATE)
    whole, weights, best, steps, first = trained(tiny_recipe, tmp_path, "lora", *early)
    assert whole.best_epoch < len(whole.epochs) < 9
    again, got, kept, seen, second = trained(tiny_recipe, tmp_path, "lora", *early)
    assert (again, seen) == (whole, steps)
    assert same(got, weights)
    assert same(kept, best)
    assert (first.notes, second.resumed_after) == ([], [len(whole.epochs)])


ANY = run_groups([load_recipe("embedded")], ["lora"], "cpu")[0].runs[0]


def some_state(epoch: int = 1) -> TrainingState:
    tensors = {
        "weights.a": torch.arange(6.0).reshape(2, 3),
        "random.torch": torch.arange(9, dtype=torch.uint8),
        "optimizer.0.step": torch.tensor(3.0),
    }
    return TrainingState(
        epoch, tensors, {"rates": [0.1, 1 / 3], "evaluator": {"results": [None, "é"]}}
    )


def test_checkpoint_is_restored_and_replaces_earlier_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ANY, "key")
    assert checkpoints.newest() is None
    for epoch in (1, 2, 10):
        checkpoints.save(some_state(epoch))
    assert [path.name for path in checkpoints.folder.iterdir()] == ["epoch-10.safetensors"]
    left_by_a_killed_process = checkpoints.folder / ".epoch-11-0.safetensors"
    left_by_a_killed_process.write_bytes(b"half")
    back, again = Checkpoints(tmp_path, ANY, "key"), Checkpoints(tmp_path, ANY, "key")
    state = back.newest()
    assert state is not None
    assert (state.epoch, state.values) == (10, some_state().values)
    assert same(state.tensors, some_state().tensors)
    assert back.notes == ["resumed after epoch 10; training time and peaks cover all processes"]
    back.save(some_state(12))
    assert again.newest() is not None
    assert again.resumed_after == [10, 12]
    assert again.notes == [
        "resumed after epoch 10 and 12; training time and peaks cover all processes"
    ]
    assert [path.name for path in checkpoints.folder.iterdir()] == ["epoch-12.safetensors"]


def test_checkpoint_with_another_key_is_not_used_and_noted(tmp_path: Path) -> None:
    Checkpoints(tmp_path, ANY, "this code").save(some_state())
    other = Checkpoints(tmp_path, ANY, "other code")
    assert other.newest() is None
    assert other.notes == [
        "checkpoint epoch-1.safetensors was not used: "
        "it belongs to other code, weights, data or versions",
        "training started from the beginning",
    ]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_checkpoint_is_set_aside(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, cut: bool
) -> None:
    """A flipped bit or a truncated file is never read as another state."""
    root = tmp_path_factory.mktemp("damage")
    Checkpoints(root, ANY, "key").save(some_state(1))
    path = Store(root).checkpoints_of(ANY.key) / "epoch-1.safetensors"
    content = bytearray(path.read_bytes())
    where = int(place * len(content))
    if cut:
        del content[where:]
    else:
        content[where] ^= 1 << bit
    path.write_bytes(content)
    found = Checkpoints(root, ANY, "key")
    assert found.newest() is None
    (aside,) = (root / "set_aside").iterdir()
    assert aside.read_bytes() == bytes(content)
    damaged, started = found.notes
    assert damaged.startswith("checkpoint epoch-1.safetensors is damaged (")
    assert damaged.endswith(f"and was moved to {aside}")
    assert started == "training started from the beginning"


def test_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path: Path) -> None:
    """The process died after writing the second file and before deleting the first."""
    checkpoints = Checkpoints(tmp_path, ANY, "key")
    checkpoints.save(some_state(1))
    (checkpoints.folder / "epoch-2.safetensors").write_bytes(b"{}")
    state = checkpoints.newest()
    assert state is not None
    assert state.epoch == 1
    assert checkpoints.notes[-1].startswith("resumed after epoch 1;")


def test_unwritable_checkpoint_only_adds_a_note(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be", encoding="utf-8")
    checkpoints = Checkpoints(tmp_path, ANY, "key")
    checkpoints.save(some_state(3))
    assert len(checkpoints.notes) == 1
    assert checkpoints.notes[0].startswith("the checkpoint after epoch 3 could not be written: ")


def test_resumed_measurements_continue_those_of_the_first_process() -> None:
    """Times, peaks and steps of the epochs continue; each process has its own start-up phases."""

    first, second = (Profiler("cpu", lambda news: None, epochs=2) for _ in range(2))
    for profiler in (first, second):
        for phase in ("warm_up", "train"):
            profiler.enter(phase)
        profiler.step(1, 1, 2)
    first.enter("save")
    saved = json.loads(json.dumps(first.measured()))
    second.take_over(saved)
    second.enter(None)
    one, two = first.meter.intervals, second.meter.intervals
    assert [interval.phase for interval in two] == ["train", "warm_up", "train"]
    assert two[0] == one[1]
    assert second.meter.seconds("train") == one[1].seconds + two[2].seconds
    assert second._steps.seconds()[:-1] == first._steps.seconds()
    assert second.environment()["trained_between"][0] == first.environment()["trained_between"][0]


@pytest.mark.slow
def test_killed_run_resumes_in_another_process(tiny_recipe: Path, tmp_path: Path) -> None:
    """SIGKILL in or soon after the second epoch: the results are unchanged, and a note is shown."""
    (run,) = small_runs(tiny_recipe, "lora", "data.train=160", "budget.epochs=5")
    store = Store(tmp_path / "results")
    store.prepare()
    folder = store.checkpoints_of(run.key)

    def kill_after_the_first_epoch(event: Event) -> None:
        if event.news and "validation_accuracy" in event.news and event.news["epoch"] == 1:
            _until(lambda: list(folder.glob("epoch-*")))
            (worker,) = scheduler._running
            os.kill(worker.process, signal.SIGKILL)

    one = (DeviceSet(threads=1),)  # as `run_here`: more threads round differently
    scheduler = new_scheduler(store, "cpu", workers=1, checkpoint=True, retries=0, devices=one)
    scheduler.watch(kill_after_the_first_epoch)
    (crashed,) = _records_of(scheduler, run)
    assert crashed.status == "crashed"
    assert list(folder.glob("epoch-*"))
    second = new_scheduler(store, "cpu", workers=1, checkpoint=True, devices=one)
    (record,) = _records_of(second, run)
    assert reproducible_results(record, store.read_predictions(record)) == reproducible_results(
        *run_here(run, tmp_path / "here")
    )
    (after,) = record.environment["resumed_after_epochs"]
    assert 1 <= after < 5
    assert record.metrics["train_seconds"] == pytest.approx(
        sum(epoch["train_seconds"] or 0.0 for epoch in record.epochs)
    )
    assert f"LoRA seed 0: resumed after epoch {after}; training time and peaks" in terminal_table(
        Comparison((record,))
    )
    assert not folder.exists()


def _records_of(scheduler: Scheduler, run: RunSpec) -> list[Record]:
    try:
        scheduler.submit([run])
        return scheduler.wait([run])
    finally:
        scheduler.close()


def _until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.001)
