"""The pace of the machine: the time of a fixed amount of work, measured beside each training.

The same training takes 5 % longer or shorter from one session to the next where clocks, heat and
other tenants differ. A fixed loop of matrix products, timed before and after the training, changes
with the machine and not with the code that is compared, so that the ratio of both times tells one
from the other (as the benchmarks of a `perf` farm divide by a calibration run).
"""

from __future__ import annotations

import time

WORK = {"cpu": (512, 8), "cuda": (2048, 100)}  # side of the matrices, and number of products


def pace_seconds(device: str) -> float:
    """Return the seconds that the products of square fp32 matrices in `WORK` take.

    They are timed after one that is not, which loads the library. No random number is drawn.
    The matrices take 2 MiB on a CPU and 32 MiB on a GPU, and are freed before the training.
    """
    import torch

    kind = device.partition(":")[0]
    side, products = WORK.get(kind, WORK["cpu"])
    matrix = torch.full((side, side), 1 / side, device=device)
    product = torch.empty_like(matrix)

    def multiply(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            torch.mm(matrix, matrix, out=product)
        if kind == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with torch.no_grad():
        multiply(1)
        return multiply(products)
