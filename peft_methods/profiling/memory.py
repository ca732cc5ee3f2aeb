"""Memory counters: resident memory of the process, and torch's memory on a GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Protocol

STATUS = Path("/proc/self/status")


class Memory(Protocol):
    """A memory counter whose peak can be reset. `kind` describes its values."""

    kind: str

    def reset(self) -> None:
        """Reset the peak to the current level."""

    def level(self) -> int:
        """Return the bytes in use now."""

    def peak(self) -> int:
        """Return the most bytes in use since the last reset."""


class ResidentMemory:
    """Resident set size of this process.

    Linux can reset the peak (/proc/PID/clear_refs). On other systems the peak only grows.
    """

    def __init__(self) -> None:
        self.can_reset = os.access("/proc/self/clear_refs", os.W_OK)
        self.kind = "resident set above its level before the model" + (
            "" if self.can_reset else ", peak never reset"
        )

    def reset(self) -> None:
        """Return memory freed in earlier phases to the system, then reset the kernel's peak."""
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        if self.can_reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def level(self) -> int:
        """Return VmRSS, or the peak if it cannot be reset."""
        return process_status("VmRSS") if self.can_reset else self.peak()

    def peak(self) -> int:
        """Return VmHWM, or getrusage's maximum on systems without /proc."""
        if self.can_reset:
            return process_status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def process_status(field: str) -> int:
    """Return a field of /proc/self/status in bytes. Raises `OSError` if it is missing."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {field}")


def address_space_left() -> int | None:
    """Return the bytes left of this process's address space limit (`ulimit -v`), None if unlimited.

    Also None on systems without /proc.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not STATUS.exists():
        return None
    return max(0, limit - process_status("VmSize"))


class ReservedMemory:
    """Peak device memory reserved by torch's allocator. `CudaMemory.reset` resets the peak."""

    def start(self) -> None:
        """Do nothing: torch resets its peaks of allocated and reserved memory together."""

    def read(self) -> float:
        """Return torch.cuda.max_memory_reserved()."""
        import torch

        return torch.cuda.max_memory_reserved()


class CudaMemory:
    """Memory allocated by torch on the current device."""

    kind = "allocated by torch on the device"

    def reset(self) -> None:
        """Reset torch's peak statistics."""
        import torch

        torch.cuda.reset_peak_memory_stats()

    def level(self) -> int:
        """Return torch.cuda.memory_allocated()."""
        import torch

        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """Return torch.cuda.max_memory_allocated()."""
        import torch

        return torch.cuda.max_memory_allocated()
