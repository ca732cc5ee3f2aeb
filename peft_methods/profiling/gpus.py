"""The GPUs of this machine as its driver shows them, and those that this process may use.

A slice of a GPU in MIG mode is a GPU of its own. Nothing here starts CUDA, and every GPU is named
by its UUID: NVML counts GPUs by their place on the PCI bus, as nvidia-smi does, but CUDA may count
the fastest first.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.profiling.environment import NOTHING, find_device
from peft_methods.profiling.nvml import PREFIXES, query, text_of, visible_gpus

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
CUDA_ERROR_NOT_INITIALIZED = 3  # from cuda.h
GIB = 2**30
WORD_BITS = 64  # of NVML's sets of cores


@dataclass(frozen=True)
class GpuInfo:
    """A GPU or a MIG slice, as NVML describes it. Values that it does not report are None.

    `index` is the number in nvidia-smi of the GPU, `whole` the UUID of the one that a slice is part
    of, and `old_name` the name of a slice before driver 470. `processes` are the ids of other
    processes that compute on it, `has_own` says whether this one does;
    `near_cores` are the CPU cores on its side of the host.
    """

    uuid: str
    name: str
    index: int
    total_bytes: int | None = None
    used_bytes: int | None = None
    processes: tuple[int, ...] = ()
    has_own: bool = False
    near_cores: tuple[int, ...] = ()
    whole: str = ""
    old_name: str = ""

    @property
    def kind(self) -> tuple[str, int | None]:
        """What must be equal for times and memory to be comparable: the name and the memory."""
        return self.name, None if self.total_bytes is None else round(self.total_bytes / GIB)

    @property
    def kind_text(self) -> str:
        """The kind as text: 'NVIDIA H200, 140 GiB'."""
        name, memory = self.kind
        return name if memory is None else f"{name}, {memory} GiB"

    @property
    def free_bytes(self) -> int | None:
        """The memory that nobody uses."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return self.total_bytes - self.used_bytes

    def is_named(self, uuid: str, *, whole: bool) -> bool:
        """Whether `uuid` names it: all of it, or with `whole` False its beginning."""
        names = [name.casefold() for name in (self.uuid, self.whole, self.old_name) if name]
        given = uuid.casefold()
        return given in names if whole else any(name.startswith(given) for name in names)


def installed_gpus() -> list[GpuInfo]:
    """Return all GPUs that the driver shows; of one in MIG mode, its slices."""
    return [
        gpu
        for index in range(visible_gpus())
        for handle in [_handle(index)]
        if handle is not None
        for gpu in _described(index, handle)
    ]


def _handle(index: int) -> Any:
    import pynvml

    return query(pynvml.nvmlDeviceGetHandleByIndex, index)


def _described(index: int, handle: Any) -> Iterator[GpuInfo]:
    """Yield a GPU, or the slices of one in MIG mode."""
    import pynvml

    near = _near_cores(handle)
    whole = _info(handle, index, str(index), near=near)
    mode = query(pynvml.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        yield whole
        return
    for number in range(query(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = query(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is None:  # the maximum is seldom reached
            continue
        instances = (
            query(pynvml.nvmlDeviceGetGpuInstanceId, part),
            query(pynvml.nvmlDeviceGetComputeInstanceId, part),
        )
        old_name = f"MIG-{whole.uuid}/{instances[0]}/{instances[1]}"
        names = {"name": f"{whole.name} MIG", "whole": whole.uuid, "old_name": old_name}
        yield _info(part, index, old_name, near=near, **names)


def _info(
    handle: Any,
    index: int,
    otherwise: str,
    *,
    near: tuple[int, ...],
    name: str = "GPU",
    **more: str,
) -> GpuInfo:
    """Describe a GPU. Without a UUID it is named `otherwise`, without a name `name`."""
    import pynvml

    memory = query(pynvml.nvmlDeviceGetMemoryInfo, handle)
    running = query(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    pids = [one.pid for one in running]
    return GpuInfo(
        uuid=text_of(query(pynvml.nvmlDeviceGetUUID, handle) or otherwise),
        name=text_of(query(pynvml.nvmlDeviceGetName, handle) or name),
        index=index,
        total_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        processes=tuple(pid for pid in pids if pid != os.getpid()),
        has_own=os.getpid() in pids,
        near_cores=near,
        **more,
    )


def _near_cores(handle: Any) -> tuple[int, ...]:
    """Return the numbers of the CPU cores close to a GPU; empty if that is not reported."""
    import pynvml

    words = -(-(os.cpu_count() or 1) // WORD_BITS)
    found = query(pynvml.nvmlDeviceGetCpuAffinity, handle, words) or ()
    return tuple(
        WORD_BITS * place + bit
        for place, word in enumerate(found)
        for bit in range(WORD_BITS)
        if int(word) >> bit & 1
    )


def gpus_here() -> list[GpuInfo]:
    """Return the GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES."""
    if find_device() == "cpu":
        return []
    return within(os.environ.get(VARIABLE), installed_gpus())


def within(variable: str | None, installed: Sequence[GpuInfo]) -> list[GpuInfo]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES leaves visible, in its order.

    As in CUDA, an entry that names no GPU hides those after it. If the first one does, it is
    returned as it is: torch will say what is wrong with it. An entry that names a GPU in MIG mode
    stands for all its slices.
    """
    if variable is None:
        return list(installed)
    found: list[GpuInfo] = []
    for entry in (part.strip() for part in variable.split(",")):
        named = of_entry(entry, installed)
        if not named:
            break
        found += [gpu for gpu in named if gpu not in found]
    first = variable.split(",")[0].strip()
    return found if found or first in NOTHING else [GpuInfo(first, "GPU", -1)]


def of_entry(entry: str, installed: Sequence[GpuInfo]) -> list[GpuInfo]:
    """Return the GPU, or the slices of one, that an entry of CUDA_VISIBLE_DEVICES names.

    It is nvidia-smi's index, a UUID or the beginning of one. Empty if it is unknown or ambiguous.
    """
    if entry.isascii() and entry.isdecimal():
        return [gpu for gpu in installed if gpu.index == int(entry)]
    named = named_by(entry, installed)
    return named if len({gpu.index for gpu in named}) == 1 else []


def named_by(uuid: str, gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """Return the GPUs with this UUID, else those whose UUID begins with it."""
    if not uuid.upper().startswith(PREFIXES):
        return []
    same = [gpu for gpu in gpus if gpu.is_named(uuid, whole=True)]
    return same or [gpu for gpu in gpus if gpu.is_named(uuid, whole=False)]


def cuda_is_started() -> bool:
    """Whether this process has started CUDA, for example through an import."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != CUDA_ERROR_NOT_INITIALIZED)


def counts_otherwise() -> bool:
    """Whether CUDA may count GPUs in another order than nvidia-smi: several kinds, by default."""
    variable = os.environ.get(VARIABLE)
    has_index = any(part.strip().isdecimal() for part in (variable or "").split(","))
    if not has_index or os.environ.get(ORDER) == "PCI_BUS_ID":
        return False
    return len({gpu.kind for gpu in installed_gpus()}) > 1


def most_numerous(gpus: Sequence[GpuInfo]) -> list[GpuInfo]:
    """Return the GPUs of the most numerous kind; of equally numerous ones, the first."""
    if not gpus:
        return []
    usual, _ = Counter(gpu.kind for gpu in gpus).most_common(1)[0]
    return [gpu for gpu in gpus if gpu.kind == usual]
