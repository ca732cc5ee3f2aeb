"""Number of processes that the kernel has killed for lack of memory (OOM kills).

The difference before and after tells whether a killed process ran out of memory.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
COUNTER = "oom_kill"


def out_of_memory_kills() -> int | None:
    """Count the OOM kills of this process's cgroup, else of the machine; None if unavailable."""
    for file in (*_files_of_group(), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text(encoding="utf-8").splitlines())
            if COUNTER in counts:
                return int(counts[COUNTER])
    return None


def _files_of_group() -> list[Path]:
    """Paths of the cgroup's OOM counters (v1 and v2).

    A container often sees its own cgroup as the root, so the root is included.
    """
    with contextlib.suppress(OSError):
        groups = [
            line.split(":", 2)
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        ]
        v1 = [
            path.lstrip("/")
            for _, controllers, path in groups
            if "memory" in controllers.split(",")
        ]
        v2 = [path.lstrip("/") for _, controllers, path in groups if not controllers]
        return [
            *(
                CGROUPS / "memory" / path / "memory.oom_control"
                for path in (*v1, *([""] if v1 else []))
            ),
            *(CGROUPS / path / "memory.events" for path in (*v2, *([""] if v2 else []))),
        ]
    return []
