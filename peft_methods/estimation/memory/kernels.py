"""Memory that kernels on a GPU take only while they run, which no operation's results show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

Sizes = list[int]


def workspace_bytes(
    name: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Sizes:
    """Return the bytes of the temporary blocks of an operation, empty where it has none."""
    known = WITHIN.get(name)
    return [] if known is None else known(inputs, outputs)


def _efficient_attention_backward(
    inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Sizes:
    """Return the sums over a row of gradient times output, and the gradient of queries in fp32.

    Source: aten/src/ATen/native/transformers/cuda/attention_backward.cu.
    """
    query = inputs[1]
    rows = math.prod(query.shape[:-1])
    sums = rows * 4
    return [sums] if query.dtype == torch.float32 else [sums, rows * query.shape[-1] * 4]


def _flash_attention_backward(
    inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Sizes:
    """Return the sums over a row, and the gradient of queries in fp32, rows rounded to 128.

    Source: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    query = inputs[1]
    batch, heads, length, width = query.shape
    rows = batch * heads * (-(-length // 128) * 128)
    return [rows * 4, rows * (-(-width // 32) * 32) * 4]


def _layer_norm_backward(
    inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Sizes:
    """Return the partial sums of the gradients of weight and bias."""
    return []


def _embedding_backward(
    inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> Sizes:
    """Return the sorted ids and their places (int64), for 3,072 ids or more.

    Source: aten/src/ATen/native/cuda/Embedding.cu.
    """
    ids = inputs[1].numel()
    return [8 * ids] * 4 if ids > 3072 else []


WITHIN: dict[str, Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], Sizes]] = {
    "aten._scaled_dot_product_efficient_attention_backward": _efficient_attention_backward,
    "aten._scaled_dot_product_flash_attention_backward": _flash_attention_backward,
    "aten.embedding_dense_backward": _embedding_backward,
}
