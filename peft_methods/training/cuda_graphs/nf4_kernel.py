"""A kernel in Triton that dequantises NF4 weights: each scale is computed once for its block.

In code that the compiler makes, element by element, each value loads its scale, the scale's table
and offset again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SCALES = 64  # of one program: 4,096 values
WARPS = 4


@triton.jit  # type: ignore[untyped-decorator]
def _dequantize(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    packed,
    scales,
    scale_table,
    scales_of_scales,
    offset,
    table,
    out,
    size,
    SCALES: tl.constexpr,
    VALUES: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Write `size` values. VALUES have a common scale, GROUP scales a common scale of theirs."""
    bytes_of_block: tl.constexpr = VALUES // 2
    block = tl.program_id(0) * SCALES + tl.arange(0, SCALES)
    is_block = block * VALUES < size
    level = tl.load(scales + block, mask=is_block, other=0).to(tl.int32)
    scale = tl.load(scale_table + level)
    scale = scale * tl.load(scales_of_scales + block // GROUP, mask=is_block, other=0.0)
    scale = (scale + tl.load(offset))[:, None]
    place = block[:, None] * bytes_of_block + tl.arange(0, bytes_of_block)[None, :]
    byte = tl.load(packed + place, mask=place < size // 2, other=0).to(tl.int32)
    # The first of two values is in the high bits.
    values = tl.join(tl.load(table + (byte >> 4)) * scale, tl.load(table + (byte & 15)) * scale)
    values = values.reshape(SCALES, VALUES)
    at = block[:, None] * VALUES + tl.arange(0, VALUES)[None, :]
    tl.store(out + at, values.to(out.dtype.element_ty), mask=at < size)


def dequantized(
    tensors: list[Tensor], size: int, dtype: torch.dtype, blocks: tuple[int, int]
) -> Tensor:
    """Return `size` values, an even number. `tensors`: see `four_bit`.

    `blocks`: the numbers of values and of scales with a common scale. Products and sums are rounded
    one by one, as bitsandbytes does it.
    """
    out = torch.empty(size, dtype=dtype, device=tensors[0].device)
    values, group = blocks
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _dequantize[(triton.cdiv(size, SCALES * values),)](
            *tensors, out, size, SCALES, values, group, num_warps=WARPS, enable_fp_fusion=False
        )
    return out
