"""What the benchmarks of the harness share. Imports no training library."""

from __future__ import annotations

import pytest

# The architecture of roberta-base, and 3,000 rows with the lengths of IMDb's reviews.
IMDB = ["model.weights=random", "data.validation=2", "data.test=2"]


def need_gpu() -> None:
    """Skip the benchmark without an NVIDIA GPU."""
    from peft_methods.profiling.environment import find_device

    if find_device() == "cpu":
        pytest.skip("needs an NVIDIA GPU")
