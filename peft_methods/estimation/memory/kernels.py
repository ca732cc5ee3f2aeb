"""Memory that kernels on a GPU take only while they run, which no operation's results show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Tensors = Sequence[torch.Tensor]
# Of reductions (aten/src/ATen/native/cuda/Reduce.cuh)
MOST_THREADS = 512
WARP = 32
VECTOR = 4  # results that a thread computes side by side, where their number allows
LEAST_VALUES, MOST_VALUES = 16, 256  # that a thread adds up


@dataclass(frozen=True)
class Multiprocessors:
    """The number of a GPU's multiprocessors, and how many threads one of them holds."""

    count: int = 132
    threads: int = 2048


def workspace_bytes(
    name: str, inputs: Tensors, outputs: Tensors, gpu: Multiprocessors = Multiprocessors()
) -> list[int]:
    """Return the bytes of the temporary blocks of an operation, empty where it has none."""
    if name in REDUCTIONS:
        found = _reduction(inputs[0], outputs[0], gpu)
        return [found] if found else []
    if name == EIGHT_BIT_PRODUCT:
        return _eight_bit_product(outputs[0])
    known = WITHIN.get(name)
    return [] if known is None else known(inputs)


def _reduction(values: torch.Tensor, results: torch.Tensor, gpu: Multiprocessors) -> int:
    """Return the bytes of partial sums, where blocks of threads share the work of a result.

    It is so where the rows of a matrix are added up, as for the gradient of a bias: few results
    of many values each, neighbours in memory. Every block then stores what its threads have.
    """
    if not values.ndim or not results.numel() or values.shape[-1] != results.numel():
        return 0
    outputs, per_output = results.numel(), values.numel() // results.numel()
    vector = next(size for size in (VECTOR, 2, 1) if outputs % size == 0)
    threads = MOST_THREADS // vector
    wide = min(_power_of_two(outputs // vector), WARP)
    high = min(_power_of_two(per_output), threads // wide)
    wide = min(_power_of_two(outputs // vector), threads // high)
    if per_output < high * LEAST_VALUES and per_output < MOST_VALUES:
        return 0
    per_thread = -(-per_output // high)
    grid = -(-(outputs // vector) // wide)
    most = gpu.count * (gpu.threads // (wide * high))
    if per_thread < MOST_VALUES or grid > most:
        return 0
    blocks = max(
        min(-(-most // grid), -(-per_thread // LEAST_VALUES)), -(-per_thread // MOST_VALUES)
    )
    return 0 if blocks == 1 else 4 * outputs * blocks * wide * vector


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is not above the number."""
    return 1 << (max(1, number).bit_length() - 1)


def _efficient_attention_backward(inputs: Tensors) -> list[int]:
    """Return the sums over a row of gradient times output, and the gradient of queries in fp32.

    Source: aten/src/ATen/native/transformers/cuda/attention_backward.cu.
    """
    query = inputs[1]
    rows = math.prod(query.shape[:-1])
    sums = rows * 4
    return [sums] if query.dtype == torch.float32 else [sums, rows * query.shape[-1] * 4]


def _flash_attention_backward(inputs: Tensors) -> list[int]:
    """Return the sums over a row, and the gradient of queries in fp32, rows rounded to 128.

    Source: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    batch, heads, length, width = inputs[1].shape
    rows = batch * heads * (-(-length // 128) * 128)
    return [rows * 4, rows * (-(-width // 32) * 32) * 4]


def _embedding_backward(inputs: Tensors) -> list[int]:
    """Return the sorted ids and their places (int64), for 3,072 ids or more.

    Source: aten/src/ATen/native/cuda/Embedding.cu.
    """
    ids = inputs[1].numel()
    return [8 * ids] * 4 if ids > 3072 else []


def _four_bit_product(inputs: Tensors) -> list[int]:
    """Return the dequantised weights and their scales of a product with 4-bit weights.

    Source: bitsandbytes, backends/cuda/ops.py. Products of few rows, which need none, are not
    those of training.
    """
    values, packed = inputs[0], inputs[1]
    weights = 2 * packed.numel() * packed.element_size()
    return [weights // 64 * 4, weights * values.element_size()]


def _eight_bit_product(result: torch.Tensor) -> list[int]:
    """Return the product in 32-bit integers and, of results of another type, its values in fp16.

    Source: bitsandbytes, backends/default/ops.py and `int8_mm_dequant` of backends/cuda/ops.py.
    """
    whole = 4 * result.numel()
    return [whole] if result.dtype == torch.float16 else [whole, 2 * result.numel()]


def _eight_bit_inputs(inputs: Tensors) -> list[int]:
    """Return the sizes of values in fp16, and the bytes that tell which ones are outliers.

    Source: bitsandbytes, `int8_vectorwise_quant` of backends/cuda/ops.py. LLM.int8() (Dettmers et
    al. 2022) looks for outliers in all inputs.
    """
    values = inputs[0].numel()
    return [2 * values, values]


def _log_sum_exp(inputs: Tensors) -> list[int]:
    """Return the exponentials, which are added up. Source: aten/src/ATen/native/ReduceOps.cpp."""
    return [inputs[0].numel() * inputs[0].element_size()]


REDUCTIONS = frozenset({"aten.sum", "aten.mean", "aten.amax", "aten.linalg_vector_norm"})
EIGHT_BIT_PRODUCT = "bitsandbytes.int8_scaled_mm"
WITHIN: dict[str, Callable[[Tensors], list[int]]] = {
    "aten._scaled_dot_product_efficient_attention_backward": _efficient_attention_backward,
    "aten._scaled_dot_product_flash_attention_backward": _flash_attention_backward,
    "aten.embedding_dense_backward": _embedding_backward,
    "aten.logsumexp": _log_sum_exp,
    "bitsandbytes.gemm_4bit": _four_bit_product,
    "bitsandbytes.int8_vectorwise_quant": _eight_bit_inputs,
}
