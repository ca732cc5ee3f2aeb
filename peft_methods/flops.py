"""Closed-form FLOPs of training an encoder, and the device's measured rate of matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterable

from peft_methods.caching import remembered_value
from peft_methods.layouts import ModelShape

MATRIX = 8192  # side of the measured matrices: large enough to saturate the device
ROUNDS = 10


def forward_flops(shape: ModelShape, lengths: Iterable[int]) -> tuple[int, int]:
    """Return the FLOPs (linear layers, attention products) of a forward pass over rows.

    `lengths` are the rows' tokens without padding. A product of (a, b) by (b, c) counts 2abc.
    Attention has two products per layer: queries by keys and attention weights by values, 4 s² h
    together. PEFT's modules, norms and embeddings are left out, as is usual (Kaplan et al. 2020,
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
    """Return the FLOPs of a training step over these rows.

    `passes` is the method's cost per step in forward passes of the linear layers. 1: no gradients
    flow into the encoder. 2: gradients of activations. 3: gradients of weights too. The attention
    products have no weights: their backward pass always costs two forward passes.
    """
    linear, attention = forward_flops(shape, lengths)
    return linear * passes + attention * (3 if passes > 1 else 1)


def device_rate() -> float:
    """Return `matmul_flops_per_second` from the user's cache, or measure and cache it.

    The cache key is the GPU, its driver and the version of torch.
    """
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
    """Measure the current GPU's rate of bf16 matrix products in FLOP/s.

    It is computed from the median time of `ROUNDS` products, after as many warm-up products.
    """
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
