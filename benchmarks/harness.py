"""What the benchmarks of the harness share. Imports no training library."""

from __future__ import annotations

import itertools
import re
import resource
import signal
from pathlib import Path
from types import FrameType

import pytest

# The architecture of roberta-base, and 3,000 rows with the lengths of IMDb's reviews.
IMDB = ["model.weights=random", "data.validation=2", "data.test=2"]


def need_gpu() -> None:
    """Skip the benchmark without an NVIDIA GPU."""
    from peft_methods.profiling.environment import find_device

    if find_device() == "cpu":
        pytest.skip("needs an NVIDIA GPU")


class CpuSamples:
    """The share of the CPU time of a `with` block that a file's functions and their callees took.

    The kernel interrupts the process a few hundred times a second of CPU time.
    """

    def __init__(self, file: str, interval: float = 0.001) -> None:
        self._file, self._interval = file, interval
        self._all = self._inside = 0

    @property
    def share(self) -> float:
        """The share, from 0 to 1."""
        return self._inside / self._all

    def __enter__(self) -> CpuSamples:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, self._interval, self._interval)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        self._all += 1
        while frame is not None and not frame.f_code.co_filename.endswith(self._file):
            frame = frame.f_back
        self._inside += frame is not None


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


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
