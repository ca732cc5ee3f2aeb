"""Products with weights in 4 bits: one kernel dequantises them, to the dtype of products.

For each product bitsandbytes takes a kernel for the scales, one for their offset, and one for the
weights, which for the backward pass are in 32 bits first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, library, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from peft_methods.training.precision import HALF

BLOCKS = (64, 256)  # values with a common scale, and scales with a common scale of theirs
MOST_VALUES = 2**31 - 1  # the kernel's places are numbers of 32 bits


@library.custom_op("peft_methods::nf4_weights", mutates_args=())
def nf4_weights(tensors: list[Tensor], shape: list[int], dtype: torch.dtype, again: bool) -> Tensor:
    """Return NF4 weights as values. `tensors`: see `_parts`.

    As an operation of its own, it is computed again for the backward pass: `again` keeps the
    compiler from taking the call there for that of the forward pass, whose result it would store.
    """
    size = shape[0] * shape[1]
    if tensors[0].is_cuda:
        # Here and not above: Triton is installed with torch's builds for GPUs alone.
        from peft_methods.training.cuda_graphs.nf4_kernel import dequantized

        return dequantized(tensors, size, dtype, BLOCKS).view(shape)
    return _dequantized(tensors, size, dtype).view(shape)


def _dequantized(tensors: list[Tensor], size: int, dtype: torch.dtype) -> Tensor:
    """Return `size` values: value = table[4 bits] * scale, with one scale for each block."""
    packed, scales, scale_table, scales_of_scales, offset, table = tensors
    place = torch.arange(size, device=packed.device)
    byte = packed.view(-1)[place // 2].int()
    is_first = place % 2 == 0  # the first of two values is in the high bits
    value = table[torch.where(is_first, byte >> 4, byte & 15)]
    block = place // BLOCKS[0]
    scale = scale_table[scales[block].int()] * scales_of_scales[block // BLOCKS[1]] + offset
    return (value * scale).to(dtype)


@nf4_weights.register_fake
def _(tensors: list[Tensor], shape: list[int], dtype: torch.dtype, again: bool) -> Tensor:
    return tensors[0].new_empty(shape, dtype=dtype)


class _Product(torch.autograd.Function):
    """x @ weights.T + bias, which stores the weights in 4 bits."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        shape: list[int],
        *tensors: Tensor,
    ) -> Tensor:
        ctx.shape = shape
        ctx.save_for_backward(*tensors)
        return linear(x, nf4_weights(list(tensors), shape, x.dtype, False), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        weights = nf4_weights(tensors, ctx.shape, gradient.dtype, True)
        return (gradient @ weights, None, None, *[None] * len(tensors))


def product(layer: Any, x: Tensor) -> Tensor:
    """Compute what a `Linear4bit` of bitsandbytes computes. The result has the dtype of `x`."""
    dtype = layer.compute_dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    tensors, shape = layer.nf4
    made: Tensor = _Product.apply(x.to(dtype), bias, shape, *tensors)  # type: ignore[no-untyped-call]
    return made.to(x.dtype)


@contextmanager
def faster_products(model: nn.Module) -> Iterator[None]:
    """Context manager: layers in NF4 with doubly quantised scales compute `product`."""
    layers = [module for module in model.modules() if _is_known(module)]
    for layer in layers:
        vars(layer).update(nf4=_parts(layer), forward=MethodType(product, layer))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward, layer.nf4  # uncovers the method of its class


def _parts(layer: Any) -> tuple[tuple[Tensor, ...], list[int]]:
    """Return the parts of the weights, and their shape.

    The parts are: the values, two a byte; their scales, a byte each; the table of scales; the
    scales of scales; the offset of scales; the table of values. They are plain tensors, since the
    compiler does not know bitsandbytes' class of parameters.
    """
    state = layer.weight.quant_state
    scales = state.state2
    tensors = (
        layer.weight.data.as_subclass(Tensor),
        state.absmax,
        scales.code,
        scales.absmax,
        state.offset,
        state.code,
    )
    return tensors, list(state.shape)


def _is_known(module: Any) -> bool:
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    bias = getattr(module, "bias", None)
    return (
        state is not None
        and not (bias is not None and bias.requires_grad)
        and state.shape.numel() <= MOST_VALUES
        and state.shape.numel() % 2 == 0
        and getattr(state, "nested", False)
        and (state.blocksize, state.state2.blocksize) == BLOCKS
        and state.quant_type == "nf4"
        and module.weight.dtype == torch.uint8
        and getattr(module, "compute_dtype", None) in HALF.values()
    )
