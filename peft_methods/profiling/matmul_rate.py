"""Rates of matrix products: the GPU's, measured once and cached, and the host's."""

from __future__ import annotations

import time

from peft_methods.utils.cache import cached_value

MATRIX = 8192  # side of the measured matrices: large enough to saturate the device
ROUNDS = 10
HOST_MATRIX = 1024  # side on the host, where smaller ones already reach its rate


def cached_matmul_rate() -> float:
    """Return `matmul_flops_per_second` from the user's cache, or measure and cache it.

    The cache key is the GPU, its driver and the version of torch.
    """
    import torch

    from peft_methods.profiling.nvml import driver_version

    properties = torch.cuda.get_device_properties(0)
    key = [
        properties.name,
        str(getattr(properties, "uuid", "")),
        torch.__version__,
        driver_version(),
    ]
    return cached_value("matmul_rates", key, matmul_flops_per_second)


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


def host_flops_per_second() -> float:
    """Measure the host's rate of fp32 matrix products in FLOP/s, with torch's threads.

    It is that of the fastest of `ROUNDS` products, since others may use the same cores.
    """
    import torch

    a, b = torch.ones(2, HOST_MATRIX, HOST_MATRIX)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * HOST_MATRIX**3 / min(times)
