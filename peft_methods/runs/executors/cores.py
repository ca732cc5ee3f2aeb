"""Shares of the host's CPU cores: one for each GPU, so that runs side by side do not disturb."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

# Fewer cores for each GPU cannot serve a training thread, that of its backward pass, the sampling
# of memory and the next run's process at once.
LEAST_CORES = 4
TOPOLOGY = Path("/sys/devices/system/cpu")


def own_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def physical_cores(cores: Sequence[int], topology: Path = TOPOLOGY) -> list[tuple[int, ...]]:
    """Group hardware threads by the physical core that they share."""
    groups: dict[str, list[int]] = {}
    for core in cores:
        file = topology / f"cpu{core}" / "topology" / "thread_siblings_list"
        siblings = str(core)
        with contextlib.suppress(OSError):
            siblings = file.read_text(encoding="utf-8").strip()
        groups.setdefault(siblings, []).append(core)
    return [tuple(group) for group in groups.values()]


def shares(
    groups: Sequence[tuple[int, ...]], near: Sequence[Collection[int]]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return for each GPU the cores of its run and those of its next run's process.

    `near` has the cores close to each GPU, which it gets first; empty if that is not known. All are
    empty, so that any core may be used, where a GPU cannot have two physical cores.
    """
    size = len(groups) // len(near)
    if size < 2:
        return [((), ())] * len(near)
    left = list(groups)
    found = []
    for close in near:
        left.sort(key=lambda group: (not set(group) & set(close), group))
        own, left = left[:size], left[size:]
        of_run, of_next = own[: -(-size // 2)], own[-(-size // 2) :]
        found.append((_flat(of_run), _flat(of_next)))
    return found


def _flat(groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted(core for group in groups for core in group))


def keep_to(cores: Collection[int]) -> None:
    """Keep all threads of this process to these cores; without any, or where refused, do nothing.

    Threads that start later are kept to the cores of the thread that starts them.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has just ended, or the container forbids it
            os.sched_setaffinity(int(thread), cores)
