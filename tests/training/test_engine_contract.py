"""The contract of engines, held by every registered one: a tiny run on the CPU.

The cuda_graphs engine calls its steps there instead of replaying them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from builders import CONFIGS, DECODERS, SEQ2SEQ, Recorder, prepared, training_job
from peft_methods.methods.base import TRAINED
from peft_methods.profiling.metrics import METRICS
from peft_methods.profiling.oom_advice import OOM_ADVICE, PHASE_ACTIVITIES
from peft_methods.profiling.phases import PHASES
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import Engine, Training, TrainingState
from peft_methods.training.registry import ALIASES, AUTO, DEFAULT, ENGINES, choose_engine, engine_of

pytestmark = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
SMALL = ("data.train=44", "data.validation=20", "budget.epochs=3")
# So high that a late epoch is worse than an early one.
UNSTABLE = (
    "data.train=160",
    "data.validation=30",
    "budget.epochs=4",
    "methods.full.learning_rate=2e-2",
)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute on a CPU: see `test_compile`."""
    monkeypatch.setattr(CudaGraphsTrainer, "compile_layers", False)


class Interrupted(Exception):
    """Simulates the end of the process."""


class Watching(Recorder):
    """Records all events and the peak steps, and may interrupt at a step."""

    def __init__(self, until: int | None = None) -> None:
        super().__init__()
        self.until = until
        self.peaks: list[str] = []

    def step(self, epoch: int, step: int, steps: int) -> None:
        super().step(epoch, step, steps)
        if step == self.until:
            raise Interrupted

    def peak_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        self.peaks.append(self.phases[-1])
        return super().peak_step(model, optimizer)

    def measured(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def take_over(self, measured: dict[str, Any]) -> None:
        self.steps = [tuple(step) for step in measured["steps"]]


class InMemory:
    """A checkpointer that keeps the newest state, as a later process would read it."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.state: TrainingState | None = None

    def newest(self) -> TrainingState | None:
        return self.state

    def save(self, state: TrainingState) -> None:
        self.epochs.append(state.epoch)
        tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
        self.state = TrainingState(state.epoch, tensors, json.loads(json.dumps(state.values)))


class Trained:
    """A finished training: its result, its events, and its last and saved weights."""

    def __init__(
        self,
        engine: Engine,
        recipe: Path,
        folder: Path,
        method: str = "lora",
        *settings: str,
        until: int | None = None,
        checkpointer: InMemory | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        ready = prepared(recipe, method, *SMALL, *settings)
        self.observer = Watching(until)
        job = training_job(ready, folder)
        self.result: Training = engine.train(job, self.observer, checkpointer)
        trained = ready[3].named_parameters()
        self.weights = {name: p.detach() for name, p in trained if p.requires_grad}
        self.saved = load_file(folder / TRAINED)


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(some[name], others[name]) for name in some
    )


def test_engine_is_described_and_its_fallback_is_another_engine(engine: Engine) -> None:
    assert engine.name not in {AUTO, ""}
    assert engine.about
    assert engine.devices
    assert set(engine.devices) <= {"cpu", "cuda"}
    seen = [engine]
    while (fallback := seen[-1].fallback) is not None:  # no circle
        assert fallback in ENGINES
        assert ENGINES[fallback] not in seen
        assert set(seen[-1].devices) <= set(ENGINES[fallback].devices)
        seen.append(ENGINES[fallback])
    assert seen[-1].name == DEFAULT, "what no other engine can train, the default one can"


def test_engine_is_found_by_its_name_and_aliases_alone(engine: Engine) -> None:
    assert engine_of(engine.name) is engine
    for alias in engine.aliases:
        assert alias not in ENGINES
        assert ALIASES[alias] == engine.name
        assert engine_of(alias) is engine
    for device in engine.devices:
        assert choose_engine(engine.name, f"{device}:0") == engine.name
        assert ENGINES[choose_engine(AUTO, device)].priority >= engine.priority


def test_phases_of_an_engine_have_a_metric_words_and_advice(engine: Engine) -> None:
    for phase in engine.phases:
        assert phase.name in PHASES
        assert METRICS[f"{phase.name}_seconds"].title == phase.title
        assert PHASE_ACTIVITIES[phase.name] == phase.activity
        assert OOM_ADVICE[phase.name].setting == phase.setting


def test_unsupported_is_none_or_a_reason_that_names_the_fallback(engine: Engine) -> None:
    for make in (*CONFIGS.values(), *DECODERS.values(), *SEQ2SEQ.values()):
        reason = engine.unsupported(make())
        if reason is not None:
            assert engine.fallback is not None
            assert engine.fallback in reason


def test_phases_and_steps_come_in_order(engine: Engine, tiny_recipe: Path, tmp_path: Path) -> None:
    done = Trained(engine, tiny_recipe, tmp_path)
    phases, own = done.observer.phases, [phase.name for phase in engine.phases]
    assert phases[: 2 + len(own)] == ["warm_up", *own, "train"]
    assert set(phases) == {"warm_up", *own, "train", "evaluate", "save"}
    assert phases[-1] == "save"
    assert phases.count("train") == len(done.result.epochs) == 3
    assert done.observer.peaks == ["warm_up"]
    total = done.result.steps
    assert done.observer.steps == [
        (1 + index // (total // 3), 1 + index, total) for index in range(total)
    ]


def test_epochs_are_reported_as_they_are_returned(
    engine: Engine, tiny_recipe: Path, tmp_path: Path
) -> None:
    done = Trained(engine, tiny_recipe, tmp_path)
    epochs = done.result.epochs
    assert tuple(done.observer.epochs) == epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        assert epoch.train_loss > 0
        assert epoch.first_loss is not None
        assert 0 < epoch.first_loss < 44 * epoch.train_loss
        assert epoch.validation_loss is not None
        assert epoch.validation_loss > 0
        assert 0 <= (epoch.validation_accuracy or 0) <= 1
        assert 0 <= (epoch.train_accuracy or 0) <= 1
    assert epochs[-1].learning_rate == pytest.approx(0, abs=1e-12)  # the schedule ends
    assert done.result.samples == 3 * 44
    assert done.result.tokens > done.result.samples
    assert all(0 < factor <= 1 for factor in done.result.decay)


def test_best_weights_are_saved_and_left_in_the_model(
    engine: Engine, tiny_recipe: Path, tmp_path: Path
) -> None:
    done = Trained(engine, tiny_recipe, tmp_path, "full", *UNSTABLE)
    epochs, best = done.result.epochs, None
    for epoch in epochs:
        best = epoch if epoch.is_better_than(best) else best
    assert best is not None
    assert done.result.best_epoch == best.epoch < len(epochs), "a late epoch must be worse"
    assert same(done.saved, done.weights)


def test_training_twice_gives_the_same_weights(
    engine: Engine, tiny_recipe: Path, tmp_path: Path
) -> None:
    one, other = (Trained(engine, tiny_recipe, tmp_path / name) for name in "ab")
    assert one.result.epochs == other.result.epochs
    assert same(one.weights, other.weights)


def test_resumed_training_equals_uninterrupted_training(
    engine: Engine, tiny_recipe: Path, tmp_path: Path
) -> None:
    dropout = "methods.lora.dropout=0.2"
    whole = Trained(engine, tiny_recipe, tmp_path / "whole", "lora", dropout)
    kept = InMemory()
    with pytest.raises(Interrupted):
        Trained(
            engine,
            tiny_recipe,
            tmp_path / "cut",
            "lora",
            dropout,
            until=whole.result.steps - 1,
            checkpointer=kept,
        )
    assert kept.epochs == [1, 2]
    torch.rand(5)  # another process has used the random numbers differently
    again = Trained(engine, tiny_recipe, tmp_path / "again", "lora", dropout, checkpointer=kept)
    assert kept.epochs == [1, 2, 3]
    assert again.result == whole.result
    assert again.observer.steps == whole.observer.steps
    assert [epoch.epoch for epoch in again.observer.epochs] == [3]
    assert same(again.weights, whole.weights)
    assert same(again.saved, whole.saved)


def test_frozen_weights_are_not_changed(engine: Engine, tiny_recipe: Path, tmp_path: Path) -> None:
    ready = prepared(tiny_recipe, "lora", *SMALL)
    model = ready[3]
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    engine.train(training_job(ready, tmp_path), Watching())
    after = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert same(frozen, after)
