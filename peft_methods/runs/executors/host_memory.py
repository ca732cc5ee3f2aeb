"""Memory of the host: how much is free, and how much a process has needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

GIB = 2**30
PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
UNKNOWN_BYTES = 16 * GIB  # a model of a few thousand million parameters
SPARE = 0.5  # of a process's memory: what must stay free beside it
# Files of a container's limit and of what it uses, of which its file cache can be freed: of
# cgroup v2 and v1.
LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


class MemoryForPrefetching:
    """Whether the host has room for one more process that loads a model before its turn.

    It may need as much as the largest process that trains has needed, and so may those that are
    loading already. Before any has trained, UNKNOWN_BYTES are assumed.
    """

    def __init__(self) -> None:
        self._highest = UNKNOWN_BYTES
        self._is_known = self._is_noted = False

    def learn(self, process: int | None) -> None:
        """Take into account how much a process that trains has needed."""
        self._highest = max(self._highest * self._is_known, peak_bytes(process) or 0)
        self._is_known = self._highest > 0

    def suffices(self, loading: Iterable[int | None]) -> bool:
        """Whether one more process fits beside those that are loading."""
        free = free_bytes()
        growing = sum(max(0, self._highest - (peak_bytes(one) or 0)) for one in loading)
        return free is None or free > growing + self._highest * (1 + SPARE)

    def note(self, count: int, limit: int) -> list[str]:
        """Return a note that only `count` of `limit` runs are prefetched; empty if it was given."""
        free = free_bytes()
        if not self._is_known or free is None or self._is_noted:
            return []
        self._is_noted = True
        return [
            f"the host's memory allows the next run to load before its turn on {count} of {limit} "
            f"GPUs: a run takes up to {self._highest / GIB:.1f} GiB of it, and {free / GIB:.1f} "
            "GiB are free."
        ]


def free_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Return the bytes that processes can still get, within the container's limit.

    None where the system does not say.
    """
    found = [_field(proc / "meminfo", "MemAvailable:", 1024), *_of_container(cgroup)]
    return min((one for one in found if one is not None), default=None)


def _of_container(cgroup: Path) -> list[int | None]:
    for limit, used, cache in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            highest = int((cgroup / limit).read_text(encoding="utf-8"))
            now = int((cgroup / used).read_text(encoding="utf-8"))
            statistics = (cgroup / used).with_name("memory.stat")
            return [highest - now + (_field(statistics, cache, 1) or 0)]
    return []


def peak_bytes(process: int | None, proc: Path = PROC) -> int | None:
    """Return the most memory that a process has held; None if it has ended."""
    return _field(proc / str(process) / "status", "VmHWM:", 1024)


def _field(file: Path, name: str, factor: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1]) * factor
    return None
