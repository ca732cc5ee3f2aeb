"""Seconds on the device of the operations of a step, one by one or fused by a compiler."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import torch

from peft_methods.estimation.operations import Operation
from peft_methods.estimation.time.rates import BYTES, DeviceRates, Precision

HALF = (torch.bfloat16, torch.float16)
INTEGERS = (torch.int8, torch.int32)  # of products of 8-bit numbers
TWO_FACTORS = ("mm", "addmm", "bmm", "baddbmm", "_int_mm")
LOOK_UPS = ("embedding", "index", "gather", "index_select")  # read of a table what they write
# Their results need all of a row: what they read must be there before, so it is written.
REDUCTIONS = ("layer_norm", "rms_norm", "_softmax", "sum", "mean", "norm", "cumsum")
DROPOUT = "native_dropout"
COPY = "_to_copy"
OPTIMIZER_TENSORS = 30  # of one kernel over many tensors
CLIPPING, ADAMW = "linalg_vector_norm", "_fused_adamw_"
BYTES_A_WEIGHT = 40  # fp32: AdamW reads 4 and writes 3 numbers, clipping reads 2 and writes 1
BYTES_SAVED = 12  # of them where the two moments have 8 bits: they are read and written
# Updates of bitsandbytes: a kernel for each tensor, for which the host waits before the next one
EIGHT_BITS, ONE_BY_ONE = "optimizer_update_8bit_blockwise", "bitsandbytes.optimizer_update_"


def is_kernel(operation: Operation) -> bool:
    """Whether an operation runs on the device; what records tools and devices does not."""
    return operation.name.partition(".")[0] not in {"prim", "profiler"} and (
        operation.written_bytes > 0 or operation.flops > 0
    )


def short_name(operation: Operation) -> str:
    """Return the name without the library that it belongs to."""
    return operation.name.rpartition(".")[2]


def is_pointwise(operation: Operation) -> bool:
    """Whether a compiler can fuse an operation with its neighbours."""
    return (
        not operation.flops
        and "attention" not in operation.name
        and "quant" not in operation.name
        and short_name(operation) != "embedding_dense_backward"
    )


def device_seconds(operation: Operation, rates: DeviceRates, *, tf32: bool = False) -> float:
    """Return the seconds of one operation in a kernel of its own."""
    moved = operation.read_bytes + operation.written_bytes
    name = short_name(operation)
    if "dequantize" in operation.name:
        return rates.kernel + moved / rates.dequantisation
    if name in LOOK_UPS:
        return rates.moving_seconds(2 * operation.written_bytes)
    if not operation.flops:
        return rates.moving_seconds(moved)
    precision = _precision(operation.dtype, tf32)
    if "attention" in operation.name:
        rate = rates.attention * rates.rate(precision) / rates.rate("half")
        return max(operation.flops / rate, rates.moving_seconds(moved))
    if name in TWO_FACTORS and len(operation.shapes) >= 2:
        *_, (*count, m, k), (*_, n) = operation.shapes
        return rates.product_seconds(m, n, k, precision, count[0] if count else 1)
    return max(operation.flops / rates.rate(precision), rates.moving_seconds(moved))


def optimizer_seconds(operations: Iterable[Operation], rates: DeviceRates) -> tuple[float, int]:
    """Return the seconds of clipping and AdamW on the device, and the number of trained tensors.

    Both work on many tensors at once, unless the optimizer is bitsandbytes'. What counts is the
    size of the gradients, whose norms are computed for clipping.
    """
    every = list(operations)
    norms = [
        one for one in every if short_name(one) == CLIPPING and one.read_bytes > one.written_bytes
    ]
    weights = sum(one.read_bytes for one in norms) / BYTES["fp32"]
    kernels = 3 * (1 + len(norms) // OPTIMIZER_TENSORS) + len(updates_one_by_one(every))
    moved = BYTES_A_WEIGHT * weights - BYTES_SAVED * weights_in_8_bits(every)
    return kernels * rates.kernel + moved / rates.bandwidth, len(norms)


def weights_in_8_bits(operations: Iterable[Operation]) -> int:
    """Return the number of weights whose moments have 8 bits."""
    return sum(math.prod(one.shapes[0]) for one in operations if short_name(one) == EIGHT_BITS)


def updates_one_by_one(operations: Iterable[Operation]) -> list[Operation]:
    """Return the updates of an optimizer that updates one tensor at a time."""
    return [one for one in operations if one.name.startswith(ONE_BY_ONE)]


def fused(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Yield the operations of each kernel of compiled forward and backward passes.

    Neighbouring pointwise operations and reductions are one kernel. The passes are compiled
    apart, so nothing is fused across them.
    """
    for (_, pointwise), group in groupby(operations, lambda one: (one.part, is_pointwise(one))):
        if pointwise:
            yield tuple(group)
        else:
            yield from ((one,) for one in group)


def kernel_seconds(group: Sequence[Operation], rates: DeviceRates, *, tf32: bool = False) -> float:
    """Return the seconds of a kernel of fused operations.

    It reads what was made before it, and writes its last result, what a reduction within it reads,
    and masks of dropout.
    """
    if not is_pointwise(group[0]):
        return device_seconds(group[0], rates, tf32=tf32)
    read = _read(group[0]) + sum(max(0, _read(b) - a.written_bytes) for a, b in pairwise(group))
    written = group[-1].written_bytes
    written += sum(a.written_bytes for a, b in pairwise(group) if _is_reduction(b))
    written += sum(
        one.written_bytes // (1 + one.dtype.itemsize)
        for one in group[:-1]
        if one.dtype is not None and short_name(one) == DROPOUT
    )
    kernels = max(1, sum(map(_is_reduction, group)))
    return kernels * rates.kernel + (read + written) / rates.bandwidth


def without_frozen_casts(operations: Sequence[Operation]) -> list[Operation]:
    """Leave out the casts of frozen weights, which compiled steps hold in 16 bits.

    The gradient of a trained weight is cast back in the backward pass; a frozen one has none.
    """
    trained = Counter(
        one.shapes[0] for one in operations if one.part == "backward" and _casts_matrix(one)
    )
    kept = []
    for one in operations:
        if one.part == "forward" and _casts_matrix(one) and one.dtype in HALF:
            trained[one.shapes[0]] -= 1
            if trained[one.shapes[0]] < 0:
                continue
        kept.append(one)
    return kept


def _casts_matrix(operation: Operation) -> bool:
    return short_name(operation) == COPY and len(operation.shapes[0]) == 2


def _read(operation: Operation) -> int:
    return operation.written_bytes if short_name(operation) in LOOK_UPS else operation.read_bytes


def _is_reduction(operation: Operation) -> bool:
    return any(one in operation.name for one in REDUCTIONS)


def _precision(dtype: torch.dtype | None, tf32: bool) -> Precision:
    if dtype in HALF:
        return "half"
    if dtype in INTEGERS:
        return "int8"
    return "tf32" if tf32 else "fp32"
