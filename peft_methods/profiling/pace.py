"""The pace of the machine: the time of a fixed amount of work, measured beside each training.

The same training takes 5 % longer or shorter from one session to the next where clocks, heat and
other tenants differ. A fixed loop of matrix products, timed before and after the training, changes
with the machine and not with the code that is compared, so that the ratio of both times tells one
from the other (as the benchmarks of a `perf` farm divide by a calibration run).
"""

from __future__ import annotations

import time

SIDE = 512  # of the matrices: 4 MiB in all, little beside any model
PRODUCTS = {"cpu": 8, "cuda": 2000}  # 2 and 540 GFLOP: some tens of milliseconds


def pace_seconds(device: str) -> float:
    """Return the seconds that `PRODUCTS` products of two `SIDE` x `SIDE` fp32 matrices take.

    They are timed after one that is not, which loads the library. No random number is drawn.
    """
    import torch

    kind = device.partition(":")[0]
    matrix = torch.full((SIDE, SIDE), 1 / SIDE, device=device)
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
        return multiply(PRODUCTS.get(kind, PRODUCTS["cpu"]))
