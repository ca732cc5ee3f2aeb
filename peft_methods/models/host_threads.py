"""How many threads draw and hash weights on the host.

torch's threads wait by spinning, so a run on a GPU has only two of them. Those of a pool sleep, so
there may be more, although a training may run beside: the next run is loaded meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from peft_methods.models import ranks

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of computing, and of time: Linux, cgroup v2
_on_gpu = False


def set_on_gpu(*, on_gpu: bool) -> None:
    """Set whether this process's run computes on a GPU, so that the host has cores to spare."""
    global _on_gpu  # noqa: PLW0603  # as torch's number of threads, which is one of the process
    _on_gpu = on_gpu


def host_threads(quota: Path = QUOTA) -> int:
    """Return torch's number of threads; beside a GPU, half of the cores if those are more.

    Cores are those that this process may use, at most as many as a container's quota. The ranks of
    a run share them. The other half is for the training beside.
    """
    threads = torch.get_num_threads()
    if not _on_gpu:
        return threads
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(threads, min(own, _allowed(quota)) // 2 // ranks.count())


def _allowed(quota: Path) -> int:
    """Return how many cores a container's quota allows; very many without one."""
    try:
        computing, time = quota.read_text(encoding="utf-8").split()
        return max(1, int(computing) // int(time))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return 2**31
