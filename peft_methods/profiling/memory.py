"""Memory counters: resident memory of the process, and torch's memory on a GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Protocol

import numpy as np

STATUS = Path("/proc/self/status")
PAGE = resource.getpagesize()


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
    """Resident set size of this process, without the pages of programs and libraries.

    Those belong to no method: a forked process maps them again when it first uses them, a process
    that has trained before has them already. Weights mapped from their file do count.

    Linux can reset the peak (/proc/PID/clear_refs). On other systems the peak only grows, and
    includes the libraries.
    """

    def __init__(self) -> None:
        self.can_reset = os.access("/proc/self/clear_refs", os.W_OK)
        self._libraries = LibraryPages()
        self.kind = (
            "resident set without libraries, above its level before the model"
            if self.can_reset
            else "resident set above its level before the model, peak never reset"
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
        """Return VmRSS without libraries, or the peak if it cannot be reset."""
        if self.can_reset:
            return process_status("VmRSS") - self._libraries.resident_bytes()
        return self.peak()

    def peak(self) -> int:
        """Return VmHWM without the libraries in memory now; getrusage's maximum without /proc.

        The kernel tells the libraries' pages of now only. Those first used between the peak and now
        are subtracted too: too much in the first training step, nothing in the later ones.
        """
        if self.can_reset:
            return process_status("VmHWM") - self._libraries.resident_bytes()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


class LibraryPages:
    """Pages in memory of this process's program and libraries (Linux only, elsewhere 0).

    A file is one of them if any part of it is mapped as executable code; weights and data are not.
    /proc/self/smaps has the figures too, but takes ten times as long (40 ms with torch loaded).
    """

    def __init__(self) -> None:
        self._at: tuple[int, int] | None = None  # RssFile, and the bytes of libraries in it

    def resident_bytes(self) -> int:
        """Return the bytes in memory: all pages of files less those of other files.

        Computed only if the pages of files have changed since the last call.
        """
        try:
            of_files = process_status("RssFile")
            if self._at is None or self._at[0] != of_files:
                others = sum(pages_in_memory(*span) for span in _spans_of_other_files())
                self._at = of_files, of_files - others * PAGE
        except OSError:
            return 0
        return self._at[1]


def _spans_of_other_files() -> list[tuple[int, int]]:
    """Return the address ranges (start, end) mapped from files without executable code."""
    spans: dict[str, list[tuple[int, int]]] = {}
    programs: set[str] = set()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, permissions, _, _, inode, *path = line.split(None, 5)
        if inode == "0":
            continue
        name = path[0] if path else ""
        if "x" in permissions:
            programs.add(name)
        start, _, end = addresses.partition("-")
        spans.setdefault(name, []).append((int(start, 16), int(end, 16)))
    return [span for name, found in spans.items() if name not in programs for span in found]


def pages_in_memory(start: int, end: int) -> int:
    """Count the pages of a file that are in memory and unchanged in this range of addresses.

    /proc/PID/pagemap has 64 bits a page: bit 63 is set if it is in memory, bit 61 if it belongs to
    a file (https://docs.kernel.org/admin-guide/mm/pagemap.html).
    """
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(start // PAGE * 8)
        entries = np.frombuffer(file.read((end - start) // PAGE * 8), dtype=np.uint64)
    return int(((entries >> 61) & 0b101 == 0b101).sum())


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
