"""Layers in 8 bits: what a GPU stores and needs for them, and that the imitation does the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from peft_methods.estimation.memory import fake_model
from peft_methods.estimation.memory.estimate import RunEstimates
from peft_methods.estimation.memory.kernels import workspace_bytes
from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.methods.registry import METHODS
from peft_methods.models.quantization import protect_tensors
from peft_methods.recipes.loading import load_recipe
from peft_methods.training.precision import autocast

ROWS, INPUTS, OUTPUTS = 96, 128, 512
HOST = torch.device("cpu")


def layer_without_data(recorder_mode: Any, *, has_outliers: bool) -> nn.Module:
    model = nn.Sequential(fake_model._eight_bits(nn.Linear(INPUTS, OUTPUTS)))
    protect_tensors(model)
    fake_model.without_data(model, recorder_mode, has_outliers=has_outliers)
    return model.train()


def live_bytes(recorder: Recorder) -> list[int]:
    """Return the bytes that are alive after each event."""
    sizes: dict[int, int] = {}
    levels = []
    for event in recorder.recording.events:
        if event.size:
            sizes[event.address] = event.size
        else:
            sizes.pop(event.address)
        levels.append(sum(sizes.values()))
    return levels


@pytest.mark.parametrize(
    ("has_outliers", "dtype"), [(False, torch.float32), (True, torch.bfloat16)]
)
def test_bytes_of_a_layer(has_outliers: bool, dtype: torch.dtype) -> None:
    """Its inputs are stored in their type, and its results have 4 bytes without outliers."""
    mode = fake_model.fake_mode()
    model = layer_without_data(mode, has_outliers=has_outliers)
    model[0].bias = None  # type: ignore[index]  # torch adds it afterwards
    recorder = Recorder(mode)
    with mode, recorder, autocast(HOST, "bf16"):
        values = torch.empty(ROWS, INPUTS, requires_grad=True)
        found = model(values)
    assert found.dtype == dtype
    levels = live_bytes(recorder)
    assert levels[-1] == ROWS * (4 * INPUTS + dtype.itemsize * OUTPUTS)
    # Inputs in fp32 and in 8 bits with a scale for each row; the products in int32, fp16 and fp32
    assert max(levels) == ROWS * (4 * INPUTS + INPUTS + 4 + (4 + 2 + 4) * OUTPUTS)


def test_a_backward_pass_dequantises_the_weights_in_the_type_of_the_inputs() -> None:
    mode = fake_model.fake_mode()
    model = layer_without_data(mode, has_outliers=False)
    recorder = Recorder(mode)
    with mode, recorder:
        values = torch.empty(ROWS, INPUTS, requires_grad=True)
        with autocast(HOST, "bf16"):
            loss = model(values).sum()
        loss.backward()
        assert values.grad is not None
        assert values.grad.dtype == torch.float32
    assert 4 * INPUTS * OUTPUTS in {one.size for one in recorder.recording.events}


@pytest.mark.parametrize(("largest", "dtype"), [(1.0, torch.float32), (20.0, torch.bfloat16)])
def test_bitsandbytes_returns_the_type_of_autocast_for_outliers_alone(
    largest: float, dtype: torch.dtype
) -> None:
    """What is imitated: the product of a GPU, run on the host with values."""
    from bitsandbytes import MatmulLtState
    from bitsandbytes.autograd._functions import MatMul8bitLt

    values = torch.rand(4, 16)
    values[0, 3] = largest
    state = MatmulLtState()
    state.has_fp16_weights, state.threshold = False, 6.0
    state.CB, state.SCB = torch.ones(8, 16, dtype=torch.int8), torch.ones(8)
    with autocast(HOST, "bf16"):
        found = MatMul8bitLt.apply(values.requires_grad_(), state.CB, None, None, state)
    assert found.dtype == dtype


def test_temporary_memory_of_products_and_of_their_inputs() -> None:
    half, full = torch.empty(6, 8, dtype=torch.float16), torch.empty(6, 8)
    assert workspace_bytes("bitsandbytes.int8_scaled_mm", [], [half]) == [4 * 48]
    assert workspace_bytes("bitsandbytes.int8_scaled_mm", [], [full]) == [4 * 48, 2 * 48]
    assert workspace_bytes("bitsandbytes.int8_vectorwise_quant", [half], []) == [2 * 48, 48]


@pytest.mark.slow
def test_pretrained_weights_on_an_h200() -> None:
    """LoRA over LLM.int8(): imdb_mpnet, 16 rows of 480 tokens (docs/figures/many-methods.json).

    What is missing are the stored columns with outliers.
    """
    recipe = load_recipe("imdb_mpnet", model="mpnet-base")
    method = METHODS.create("lora_int8", {}, "imdb_mpnet", recipe)
    memory = RunEstimates(recipe, method, "trainer").memory(16, 480).memory
    assert memory.peak == pytest.approx(7739532288, rel=0.01)
    random = load_recipe("imdb_mpnet", model="mpnet-base", weights="random")
    more = RunEstimates(random, method, "trainer").memory(16, 480).memory
    assert more.peak > 1.1 * memory.peak
