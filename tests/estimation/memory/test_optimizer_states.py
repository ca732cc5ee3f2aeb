"""Optimizer states in 8 bits: an estimate has the bytes that bitsandbytes really stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from builders import make_model
from peft_methods.estimation.memory.fake_run import FakeRun, build
from peft_methods.estimation.memory.program import record
from peft_methods.estimation.memory.simulation import simulate
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.loading import load_recipe
from peft_methods.training.eight_bit_adamw import AdamW8bit

NAME, HIDDEN = "full_8bit", 64


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose matrices have states in 8 bits, one of them in an incomplete last block."""
    folder = make_model(tmp_path_factory.mktemp("wide") / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = HIDDEN, 99
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def run_of(model: Path, name: str = NAME) -> FakeRun:
    recipe = load_recipe("embedded", [f"model.source={model}", "model.weights=random"])
    return build(recipe, METHODS.create(name, {}, "embedded", recipe), 16)


def stored_bytes(states: Mapping[Any, Mapping[str, Any]]) -> int:
    """Return the bytes of all tensors of a state, each counted once."""
    found = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for state in states.values()
        for one in state.values()
        if isinstance(one, torch.Tensor)
    }
    return sum(found.values())


def test_state_bytes_equal_those_of_real_steps(wide: Path) -> None:
    run = run_of(wide)
    found = simulate(record(run)).parts["optimizer_state"]
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        wide, num_labels=run.base.model.config.num_labels
    )
    optimizer = AdamW8bit(list(model.parameters()), of=model, lr=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert {state["state1"].dtype for state in optimizer.state.values()} == {
        torch.uint8,
        torch.float32,
    }
    assert found == stored_bytes(optimizer.state)


def test_only_the_state_is_smaller_than_that_of_full_fine_tuning(wide: Path) -> None:
    full, eight = (simulate(record(run_of(wide, name))).parts for name in ("full", NAME))
    assert eight["weights"] == full["weights"]
    assert eight["optimizer_state"] < full["optimizer_state"]


def test_estimates_leave_methods_with_other_states_as_they_are(wide: Path) -> None:
    run = run_of(wide, "full")
    trained = sum(p.numel() for p in run.model.parameters())
    count = len(list(run.model.parameters()))
    assert simulate(record(run)).parts["optimizer_state"] == 8 * trained + 4 * count


def test_updates_are_recorded_one_by_one(wide: Path) -> None:
    run = run_of(wide)
    found = [
        one.name
        for one in record(run).recording.operations
        if one.name.startswith("bitsandbytes.optimizer_update_")
    ]
    large = sum(
        p.numel() >= 4096
        for m in run.model.modules()
        for p in m.parameters(recurse=False)
        if not isinstance(m, nn.Embedding)
    )
    assert found.count("bitsandbytes.optimizer_update_8bit_blockwise") == large > 0
    assert len(found) == len(list(run.model.parameters()))
