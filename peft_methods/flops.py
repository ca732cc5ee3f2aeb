"""Floating-point operations of training an encoder in closed form, and the rate that the device reaches in matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterable

from peft_methods.caching import remembered_value
from peft_methods.layouts import ModelShape

MATRIX = 8192  # side of the measured product: large enough that the device is the limit
ROUNDS = 10


def forward_flops(shape: ModelShape, lengths: Iterable[int]) -> tuple[int, int]:
    """(linear maps, attention products) of a forward pass over rows of so many tokens, padding not counted.

    A product of (a, b) by (b, c) counts 2abc. Attention has two products per layer: queries by keys and shares by
    values, 4 s² h together. What PEFT adds, norms and embeddings are left out, as is usual (Kaplan et al. 2020,
    arXiv:2001.08361, appendix; PaLM, Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    """
    per_token = shape.layers * sum(
        2 * inputs * outputs for inputs, outputs in shape.dimensions.values()
    )
    tokens = squares = 0
    for length in lengths:
        tokens += length
        squares += length * length
    return tokens * per_token, shape.layers * 4 * squares * shape.hidden


def training_flops(shape: ModelShape, lengths: Iterable[int], passes: float) -> float:
    """Of a training step over these rows, for a method that works so many forward passes a step.

    1 pass: nothing flows back into the encoder. 2: gradients of activations. 3: those of the weights too. The products
    of attention have no weights: their backward pass is two forward passes in any case.
    """
    linear, attention = forward_flops(shape, lengths)
    return linear * passes + attention * (3 if passes > 1 else 1)


def device_rate() -> float:
    """`matmul_flops_per_second`, measured once on each GPU, driver and torch and then read from the user's cache."""
    import torch

    from peft_methods.nvml import Gpu

    properties, gpu = torch.cuda.get_device_properties(0), Gpu.current()
    key = [
        properties.name,
        str(getattr(properties, "uuid", "")),
        torch.__version__,
        gpu and gpu.state().get("driver"),
    ]
    return remembered_value("matmul_rates", key, matmul_flops_per_second)


def matmul_flops_per_second() -> float:
    """The present GPU's rate in bf16 matrix products: the median of several, the first ones left out."""
    import torch

    a = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    times = []
    for _ in range(2 * ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / sorted(times[ROUNDS:])[ROUNDS // 2]
