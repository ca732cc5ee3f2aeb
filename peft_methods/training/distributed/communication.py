"""The time in which the ranks exchange weights and gradients, from a profile of one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from peft_methods.models import ranks

# Names of the collectives: kernels on a GPU, operations on a CPU.
KERNELS, OPERATIONS = ("nccl",), ("gloo:",)


def communication_seconds(step: Callable[[], object]) -> float | None:
    """Run a step and return the seconds that its collectives take; None on one GPU.

    A collective also takes the time in which it waits for slower ranks, so the least of all ranks
    counts. Work that goes on meanwhile is not subtracted. A rank's profile may lack the end of a
    collective on the CPU, which another thread records; such a rank does not count.
    """
    if ranks.count() == 1:
        return None
    on_gpu = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as traced:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    found = None
    with contextlib.suppress(Exception):  # a profiler without access to the GPU
        found = _seconds(traced.events() or ())
    return min(filter(None, ranks.gathered(found)), default=None)


def _seconds(events: Any) -> float:
    """Sum the times of the collectives, in seconds. The profiler counts microseconds."""
    return 1e-6 * sum(
        event.time_range.elapsed_us()
        for event in events
        if event.name.startswith((*KERNELS, *OPERATIONS))
    )
