"""Products with weights in 4 bits: one compiled kernel dequantises them, to the dtype of products.

For each product bitsandbytes takes a kernel for the scales, one for their offset, and one for the
weights, which for the backward pass are in 32 bits first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from peft_methods.training.cuda_graphs.compat import below_autograd
from peft_methods.training.precision import HALF

# Values with a common scale, and scales with a common scale of theirs: powers of two.
SHIFTS = (6, 8)
BLOCKS = (2 ** SHIFTS[0], 2 ** SHIFTS[1])
MOST_VALUES = 2**31 - 1  # places are numbers of 32 bits


class Dequantized(nn.Module):
    """NF4 weights with doubly quantised scales, as values. It is a module to be compiled.

    Places are numbers of 32 bits, divided by shifts: a GPU divides those of 64 bits, and by numbers
    that are inputs, in many instructions.
    """

    def forward(self, tensors: tuple[Tensor, ...], size: int, dtype: torch.dtype) -> Tensor:
        """Return `size` values: value = table[4 bits] * scale, with one scale for each block."""
        packed, scales, scale_table, scales_of_scales, offset, table = tensors
        place = torch.arange(size, device=packed.device, dtype=torch.int32)
        byte = packed.view(-1)[place >> 1].int()
        first = (place & 1) == 0  # the first of two values is in the high bits
        value = table[torch.where(first, byte >> 4, byte & 15)]
        block = place >> SHIFTS[0]
        scale = scale_table[scales[block].int()] * scales_of_scales[block >> SHIFTS[1]] + offset
        return (value * scale).to(dtype)


DEQUANTIZED = Dequantized()


@torch.library.custom_op("peft_methods::nf4_weights", mutates_args=())
def nf4_weights(tensors: list[Tensor], shape: list[int], dtype: torch.dtype, again: bool) -> Tensor:
    """Return NF4 weights as values. `tensors`: see `Dequantized`.

    As an operation of its own, it is computed again for the backward pass: `again` keeps the
    compiler from taking the call there for that of the forward pass, whose result it would store.
    """
    size, kind = shape[0] * shape[1], tensors[0].device.type
    # The same state in both passes, so that the code compiled in the first serves the second.
    plain = torch.autocast(kind, enabled=False, cache_enabled=False)
    with torch.no_grad(), plain, below_autograd():
        made: Tensor = DEQUANTIZED(tuple(tensors), size, dtype)
    return made.view(shape)


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
def compiled_products(model: nn.Module) -> Iterator[None]:
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
    """Return the tensors that `Dequantized` reads, and the shape of the weights.

    They are plain tensors, since the compiler does not know bitsandbytes' class of parameters.
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
        and getattr(state, "nested", False)
        and (state.blocksize, state.state2.blocksize) == BLOCKS
        and state.quant_type == "nf4"
        and getattr(module, "compute_dtype", None) in HALF.values()
    )
