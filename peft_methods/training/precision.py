"""Numeric precision of training: autocast contexts and TF32 matrix products."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(
    device: torch.device, precision: str, *, cached: bool = True
) -> AbstractContextManager[Any]:
    """Return the autocast context for the recipe's precision; a null context for fp32 and tf32.

    `cached`: a trained weight is cast once within the context. Captured steps cannot do that.
    """
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, HALF[precision], cache_enabled=cached)


def set_matmul_precision(precision: str) -> None:
    """Enable TF32 for fp32 matrix products if the recipe's precision is tf32, else disable it.

    Use the one setting that all of torch reads. transformers sets a newer one, after which reading
    torch's older settings raises an error, and the compiler reads them.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
