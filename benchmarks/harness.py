"""What the benchmarks of the harness share. Imports no training library."""

from __future__ import annotations

import itertools
import re

import pytest

# The architecture of roberta-base, and 3,000 rows with the lengths of IMDb's reviews.
IMDB = ["model.weights=random", "data.validation=2", "data.test=2"]


def need_gpu() -> None:
    """Skip the benchmark without an NVIDIA GPU."""
    from peft_methods.profiling.environment import find_device

    if find_device() == "cpu":
        pytest.skip("needs an NVIDIA GPU")


KINDS_OF_KERNELS = {  # the first pattern that matches counts
    "attention": "flash|fmha",
    "matrix products": "gemm|cutlass|xmma|nvjet|cublas",
    "fused by the compiler": "triton",
    "clipping and AdamW": "multi_tensor|adam",
    "copies": "memcpy|memset",
}


def print_kernels(title: str, milliseconds: dict[str, float]) -> dict[str, float]:
    """Print the milliseconds of a step by kind of kernel, and the slowest kernels. Return kinds."""
    kinds: dict[str, float] = {}
    for name, spent in milliseconds.items():
        found = (
            kind
            for kind, pattern in KINDS_OF_KERNELS.items()
            if re.search(pattern, name, re.IGNORECASE)
        )
        kind = next(found, "other")
        kinds[kind] = kinds.get(kind, 0.0) + spent
    print(
        f"{title}: {sum(kinds.values()):.1f} ms a step: "
        + ", ".join(f"{kind} {spent:.1f}" for kind, spent in kinds.items())
    )
    for name, spent in itertools.islice(milliseconds.items(), 12):
        print(f"  {spent:6.2f} ms {name[:120]}")
    return kinds
