"""How many threads draw and hash weights on the host.

torch's threads wait by spinning, so a run on a GPU has only two of them. Threads of our own do not:
they may use more cores, for seconds that nobody measures.
"""

from __future__ import annotations

import os

import torch

# Of a training run beside: its thread, that of its backward pass, the sampling of memory, and the
# launches of kernels.
LEFT_CORES = 4
_on_gpu = False


def run_is_on_gpu(*, answer: bool) -> None:
    """Set whether this process's run computes on a GPU, so that cores of the host are free."""
    global _on_gpu  # noqa: PLW0603  # as torch's number of threads, which is one of the process
    _on_gpu = answer


def host_threads() -> int:
    """Return the number of threads for work on weights: torch's, or of a GPU's host the cores."""
    threads = torch.get_num_threads()
    if not _on_gpu:
        return threads
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(threads, cores - LEFT_CORES)
