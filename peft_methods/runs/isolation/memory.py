"""Memory that a run leaves behind: bytes on the device, living tensors, and resident memory."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import torch

from peft_methods.models.quantization import forget_tables
from peft_methods.models.workspaces import free_cublas_workspaces
from peft_methods.profiling.memory import STATUS, process_status
from peft_methods.training.cuda_graphs.compile import forget_compiled

MIB = 2**20
MOST_NAMED = 5  # blocks
MOST_TENSOR_BYTES = MIB  # left on the host: small constants of libraries
MOST_GROWTH = 256 * MIB  # of the resident memory, in all runs of a process together
MOST_RELATIVE_GROWTH = 0.1  # of the resident memory after the first run
# On a GPU no figure contains resident memory, and each method's compiled code adds to it: after
# three methods of MPNet's size 260 to 390 MiB. To replace a process costs about five seconds.
MOST_GROWTH_ON_GPU = 1024 * MIB


def free_all() -> None:
    """Free everything that no Python object needs, and all that torch keeps for later."""
    gc.collect()
    torch.clear_autocast_cache()
    forget_tables()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        free_cublas_workspaces()
        if torch.cuda.memory_allocated():
            forget_compiled()  # its constants may be on the device
            gc.collect()
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def living_tensor_bytes() -> int:
    """Return the bytes on the host of all tensors that the garbage collector knows.

    Objects that were frozen (`gc.freeze`) do not count.
    """
    found: dict[int, int] = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter) and one.device.type == "cpu":
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def _blocks_on_device() -> list[int]:
    """Return the sizes in bytes of the blocks that torch's allocator has handed out."""
    if not torch.cuda.is_initialized() or not torch.cuda.memory_allocated():  # type: ignore[no-untyped-call]
        return []
    segments: Any = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    blocks = [block for segment in segments for block in segment["blocks"]]
    return [block["size"] for block in blocks if block["state"] == "active_allocated"]


class MemoryLeft:
    """What a process holds after each of its runs, beside what it held before."""

    def __init__(self) -> None:
        self._resident_after_first: int | None = None
        self._tensors = living_tensor_bytes()

    def left_behind(self) -> list[str]:
        """Describe what the run that has just ended has left. Call it after `free_all`."""
        found = []
        if blocks := _blocks_on_device():
            largest = ", ".join(f"{size:,}" for size in sorted(blocks, reverse=True)[:MOST_NAMED])
            found.append(
                f"{sum(blocks):,} bytes are still allocated on the GPU, in {len(blocks)} blocks "
                f"(the largest: {largest})"
            )
        tensors = living_tensor_bytes() - self._tensors
        if tensors > MOST_TENSOR_BYTES:
            found.append(f"tensors of {tensors / MIB:,.1f} MiB are still alive on the host")
        resident = process_status("VmRSS") if STATUS.exists() else 0
        first = self._resident_after_first = self._resident_after_first or resident
        if resident - first > _most_growth(first):
            found.append(
                f"its resident memory has grown from {first / MIB:,.0f} to {resident / MIB:,.0f} "
                "MiB since its first run"
            )
        return found


def _most_growth(first: int) -> float:
    """Return by how many bytes the resident memory of a process may grow after its first run."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return MOST_GROWTH_ON_GPU
    return max(MOST_GROWTH, MOST_RELATIVE_GROWTH * first)
