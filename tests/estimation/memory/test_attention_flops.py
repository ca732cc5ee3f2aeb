"""FLOPs of attention with grouped queries: those of attention with as many heads everywhere."""

from __future__ import annotations

import torch

from peft_methods.estimation.memory.attention_flops import attention_formulas

HEADS = (2, 8, 16, 4)  # batch, heads, rows, width


def test_fewer_heads_of_keys_cost_as_much_as_all_of_them() -> None:
    formulas = attention_formulas()
    forward = formulas[torch.ops.aten._scaled_dot_product_flash_attention]
    backward = formulas[torch.ops.aten._scaled_dot_product_flash_attention_backward]
    products = 2 * 2 * 8 * 16 * 16 * 4  # FLOPs of queries times keys
    for heads in (1, 2, 8):
        few = (2, heads, 16, 4)
        assert forward(HEADS, few, few) == 2 * products
        assert backward(HEADS, HEADS, few, few) == 5 * products
