"""Products with 4-bit weights: the bits of bitsandbytes, whose layers are left as they were."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import nn

from peft_methods.models.quantization import disable_repacking
from peft_methods.training.cuda_graphs.four_bit import faster_products, nf4_weights


def quantized(rows: int, columns: int, dtype: torch.dtype, **options: Any) -> Any:
    """Return a frozen layer, quantised as QLoRA's are."""
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(
        columns,
        rows,
        compute_dtype=dtype,
        quant_type="nf4",
        **{"compress_statistics": True, **options},
    ).to("cpu")
    disable_repacking(layer)
    return layer.requires_grad_(False)


def outputs_and_gradients(layer: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    x = torch.randn(7, layer.in_features, dtype=dtype, requires_grad=True)
    y = layer(x)
    return y, *torch.autograd.grad(y, x, torch.randn_like(y))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(130, 192), (64, 64), (1000, 128)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_have_the_bits_of_bitsandbytes(
    dtype: torch.dtype, shape: tuple[int, int], bias: bool
) -> None:
    layer = quantized(*shape, dtype, bias=bias)
    layer(torch.randn(1, shape[1]))  # rounds the bias
    for of_input in (torch.float32, dtype):
        expected = outputs_and_gradients(layer, of_input)
        with faster_products(nn.Sequential(layer)):
            assert vars(layer)["forward"] is not None
            found = outputs_and_gradients(layer, of_input)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype
    assert not {"forward", "nf4"} & set(vars(layer))
    state = layer.weight.quant_state
    parts = [layer.weight.data, state.absmax, state.state2.code, state.state2.absmax]
    parts += [state.offset, state.code]
    values = nf4_weights(parts, list(shape), torch.float32, False)
    assert torch.equal(values, bitsandbytes.functional.dequantize_4bit(layer.weight, state))


def trained_bias() -> Any:
    layer = quantized(64, 64, torch.bfloat16)
    layer.bias.requires_grad = True
    return layer


def with_other_blocks(layer: Any) -> Any:
    values = torch.randn(layer.out_features, layer.in_features)
    layer.weight = bitsandbytes.nn.Params4bit(
        values, requires_grad=False, quant_type="nf4", blocksize=128
    ).to("cpu")
    return layer


@pytest.mark.parametrize(
    "other",
    [
        lambda: quantized(64, 64, torch.bfloat16, compress_statistics=False),
        lambda: quantized(64, 64, torch.float32),
        lambda: with_other_blocks(quantized(64, 64, torch.bfloat16)),
        trained_bias,
        lambda: nn.Linear(64, 64),
    ],
)
def test_other_layers_keep_their_products(other: Any) -> None:
    layer = other()
    with faster_products(nn.Sequential(layer)):
        assert "forward" not in vars(layer)


INTERPRETED = """
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft_methods.training.cuda_graphs.four_bit import BLOCKS
from peft_methods.training.cuda_graphs.nf4_kernel import dequantized

for shape in ((130, 192), (64, 64), (1000, 128), (7, 30)):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed, state = quantize_4bit(values, quant_type="nf4", compress_statistics=True)
    scales = state.state2
    parts = [packed, state.absmax, scales.code, scales.absmax, state.offset, state.code]
    for dtype in (torch.float32, torch.float16):
        found = dequantized(parts, values.numel(), dtype, BLOCKS).view(shape)
        assert torch.equal(found, dequantize_4bit(packed, state).to(dtype))
"""


def test_kernel_gives_the_bits_of_bitsandbytes_in_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter rounds to bfloat16 by truncation, so that type is tested on a GPU alone."""
    pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    subprocess.run([sys.executable, "-W", "ignore", "-c", INTERPRETED], check=True)
