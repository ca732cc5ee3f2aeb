"""4-bit weights on a processor: their values are nearest to the weights, whatever their shape."""

from __future__ import annotations

import pytest
import torch

from peft_methods.models.four_bit_scales import read_scales_in_order


@pytest.mark.skipif(not hasattr(torch.library, "get_kernel"), reason="torch before 2.9")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("columns", [16, 32, 64, 96, 312, 384])
def test_rounding_takes_as_much_of_rows_of_any_length(
    columns: int, kind: str, dtype: torch.dtype
) -> None:
    import bitsandbytes as bnb

    read_scales_in_order()
    torch.manual_seed(0)
    weights = torch.randn(64, columns)
    numbers, state = bnb.functional.quantize_4bit(weights.to(dtype), quant_type=kind)
    values = bnb.functional.dequantize_4bit(numbers, state)
    assert (values.dtype, values.shape) == (dtype, weights.shape)
    assert float((values.float() - weights).norm() / weights.norm()) < 0.14
    inputs = torch.randn(3, columns, dtype=dtype)
    product = bnb.matmul_4bit(inputs, numbers.t(), state)
    assert torch.allclose(product, inputs @ values.T, atol=0.02 * float(product.abs().max()))


def test_it_is_asked_once_and_stays() -> None:
    import bitsandbytes.functional as bnb

    read_scales_in_order()
    weights = torch.randn(4, 96)
    stored = bnb.quantize_4bit(weights, quant_type="nf4")
    first = bnb.dequantize_4bit(*stored)
    read_scales_in_order()
    assert torch.equal(bnb.dequantize_4bit(*stored), first)
