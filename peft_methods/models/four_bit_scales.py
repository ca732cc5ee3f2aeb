"""Scales of 4-bit weights on a processor: bitsandbytes may read those of other blocks.

bitsandbytes 0.50 on processors with AVX-512 takes the scale of a weight by its row. Those of rows
that are a multiple of 16 and none of 64 numbers long are wrong: rounding takes 20 to 45 % of a
matrix's norm in place of 9 %. Of all weights in one row it takes the right ones.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch

OPERATION = "dequantize_4bit"
ROWS, COLUMNS = 4, 96  # of weights of which half of the blocks begin within a row
MOST = 0.2  # of the norm of weights that rounding may take: it takes 0.09


@cache
def read_scales_in_order() -> None:
    """Make bitsandbytes read the scales of 4-bit weights on the CPU in their order, if it does not.

    It holds for the process. Older torch (before 2.9) cannot replace the operation: then it stays.
    """
    import bitsandbytes.functional as bnb

    weights = torch.linspace(-1, 1, ROWS * COLUMNS).view(ROWS, COLUMNS)
    found = bnb.dequantize_4bit(*bnb.quantize_4bit(weights, quant_type="nf4"))
    is_right = float((found - weights).norm()) <= MOST * float(weights.norm())
    kernel_of: Any = getattr(torch.library, "get_kernel", None)
    if is_right or kernel_of is None:
        return
    kernel = kernel_of(f"bitsandbytes::{OPERATION}", "CPU")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)

    def in_one_row(*arguments: Any) -> torch.Tensor:
        *stored, shape, dtype = arguments  # numbers, scales, the size of a block, the format
        row = (1, math.prod(shape))
        values: torch.Tensor = kernel.call_boxed(keys, *stored, row, dtype)
        return values.view(tuple(shape))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*may also be overridden", UserWarning)
        _library().impl(OPERATION, in_one_row, "CPU", allow_override=True)


@cache
def _library() -> Any:
    """Return what holds the operation: it ends with this object."""
    library: Any = torch.library.Library
    return library("bitsandbytes", "IMPL")
