"""The checks find what a method breaks, each by its own name."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peft_methods.capabilities.cells import CHECKS, Cell, Precision, Result
from peft_methods.capabilities.checks import measure
from peft_methods.capabilities.engines import measure_engines
from peft_methods.capabilities.reload import problem_of
from peft_methods.capabilities.stepping import TRAINERS
from peft_methods.capabilities.toy import Ground
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selective.full import Full
from peft_methods.models.architecture import Architecture
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer

TASK = "text_classification"


@dataclass(frozen=True, kw_only=True)
class Sloppy(LoRA):
    """Miscounts, changes the base model at its start without saving it, and merges wrongly."""

    info = replace(LoRA.info, name="sloppy")

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.5)  # type: ignore[operator]
        return super().apply(model, context)

    def expected_trainable(self, architecture: Architecture) -> int:
        return super().expected_trainable(architecture) + 1

    def merge(self, model: nn.Module) -> nn.Module | None:
        merged: Any = super().merge(model)
        with torch.no_grad():
            merged.classifier.bias.add_(0.1)
        return merged


@dataclass(frozen=True, kw_only=True)
class Drifting(Full):
    """Freezes the head and changes it, has a weight without use, and draws random numbers."""

    info = replace(Full.info, name="drifting")

    def apply(self, model: Any, context: ApplyContext) -> nn.Module:
        model = super().apply(model, context)
        model.classifier.requires_grad_(False)
        model.register_parameter("idle", nn.Parameter(torch.ones(3)))
        dense = model.get_submodule("bert.encoder.layer.0.output.dense")
        dense.register_forward_hook(lambda *given: given[2] * (1 + random.SystemRandom().random()))
        return model

    def penalty(self, model: Any) -> None:
        with torch.no_grad():
            model.classifier.bias.add_(0.01)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground.made(
        tmp_path_factory.mktemp("ground"), ["bert", "t5", "llama"], [TASK, "causal_lm"]
    )


def checked(
    method: type[Method], ground: Ground, folder: Path, patch: pytest.MonkeyPatch
) -> tuple[Cell, Result]:
    patch.setitem(METHODS._methods, method.info.name, method)
    cell = Cell(method.info.name, "bert", TASK)
    return cell, measure(cell, ground, folder / "work", folder / "saved")


def test_wrong_count_start_merge_and_saved_model_are_found(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, result = checked(Sloppy, ground, tmp_path, monkeypatch)
    assert result.failed.keys() == {"count", "start", "merge"}
    assert "trainable parameters, expected" in result.failed["count"]
    assert "outputs differ by" in result.failed["start"]
    problem = problem_of(cell, ground, tmp_path / "saved", "cpu")
    assert problem.startswith("predictions differ by up to")
    assert result.waits_for_reload
    assert result.with_reload(problem).failed["reload"] == problem
    assert result.with_reload("") == result
    assert {*result.passed, *result.failed} == {*CHECKS}


def test_drift_and_idle_weights_are_found(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = checked(Drifting, ground, tmp_path, monkeypatch)
    wrong = {"count", "start", "trains", "head", "frozen", "checkpointing", "repeat", "engines"}
    assert result.failed.keys() == wrong
    assert "trained weights did not move: idle" in result.failed["trains"]
    assert "frozen weights changed: classifier.bias" in result.failed["frozen"]
    assert "weights of the head are not trained" in result.failed["head"]
    assert result.unneeded == {"merge": "the method cannot be merged"}
    assert not result.waits_for_reload


def test_error_of_a_library_fails_its_check_by_name(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoRA, "config", lambda *_: 1 / 0)
    result = measure(Cell("lora", "bert", TASK), ground, tmp_path, tmp_path)
    assert result.failed == {"count": "ZeroDivisionError: division by zero"}
    assert result.status == "failed"
    monkeypatch.setattr(LoRA, "unsupported", lambda *_: 1 / 0)
    assert measure(Cell("lora", "bert", TASK), ground, tmp_path, tmp_path).status == "failed"


@dataclass(frozen=True, kw_only=True)
class Idle(LoRA):
    """Learns at so low a rate that its weights move and its loss does not."""

    info = replace(LoRA.info, name="idle")

    @classmethod
    def example_settings(cls) -> dict[str, float]:
        return {"learning_rate": 1e-6, "head_learning_rate": 1e-6}


def test_loss_that_does_not_fall_is_found(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = checked(Idle, ground, tmp_path, monkeypatch)
    assert result.failed.keys() == {"trains"}
    assert "before training, and" in result.failed["trains"]


@pytest.mark.parametrize(
    "cell",
    [
        Cell("deft", "llama", "causal_lm"),
        Cell("pvera", "llama", "causal_lm", checkpointing=True),
        Cell("adapter_fusion", "bert", TASK, checkpointing=True),
    ],
    ids=lambda cell: cell.name.replace("/", "-"),
)
def test_engines_agree_in_all_steps(cell: Cell, ground: Ground, tmp_path: Path) -> None:
    """Even if gradients start at zero but for rounding, or noise or dropout is drawn again."""
    result = measure_engines(cell, ground, tmp_path, "cpu")
    assert (result.passed, result.failed) == (("engines",), {})


@pytest.mark.parametrize(("precision", "growth"), [("fp32", 3e-5), ("bf16", 6e-3)])
def test_difference_of_engines_that_grows_is_found(
    precision: Precision,
    growth: float,
    ground: Ground,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(CudaGraphsTrainer):
        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            return super().training_step(*arguments, **options) + growth * self.state.global_step

    monkeypatch.setitem(TRAINERS, "cuda_graphs", Wrong)
    result = measure_engines(Cell("lora", "bert", TASK, precision), ground, tmp_path, "cpu")
    assert result.failed["engines"].startswith("the loss of step 5 is")


def test_each_step_has_the_bound_of_its_own_loss(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that the loss of the first step would excuse is found once the loss is lower."""

    class Wrong(CudaGraphsTrainer):
        first = 0.0

        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            loss = super().training_step(*arguments, **options)
            self.first = self.first or float(loss)
            return loss + 0.017 * self.first

    monkeypatch.setitem(TRAINERS, "cuda_graphs", Wrong)
    cell = Cell("full", "llama", "causal_lm", "bf16")
    result = measure_engines(cell, ground, tmp_path, "cpu")
    assert re.match(r"the loss of step \d+ is", result.failed["engines"])
    assert not result.failed["engines"].startswith("the loss of step 1 is")


def test_engines_alone_are_measured(ground: Ground, tmp_path: Path) -> None:
    result = measure_engines(Cell("lora", "bert", TASK), ground, tmp_path, "cpu")
    assert (result.passed, result.status) == (("engines",), "passed")
    other = measure_engines(Cell("lora", "t5", TASK), ground, tmp_path, "cpu")
    assert "encoders and decoders" in other.unneeded["engines"]
    refused = measure_engines(Cell("bitfit", "t5", TASK), ground, tmp_path, "cpu")
    assert refused.status == "unsupported"
