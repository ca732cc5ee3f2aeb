"""A driver with GPUs for machines without one: it answers pynvml's calls as NVML does.

Handles, MIG slices and errors are those of the real library, whose own error classes are raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from peft_methods.profiling import environment

GIB = 2**30


@dataclass(eq=False)
class Slice:
    """A MIG slice: a GPU instance with one compute instance."""

    uuid: str
    profile: str = "1g.18gb"
    memory: int = 16 * GIB
    instances: tuple[int, int] = (1, 0)
    used: int = 0
    pids: tuple[int, ...] = ()
    gpu: FakeGpu | None = None


@dataclass(eq=False)
class FakeGpu:
    """A GPU. With `slices` it is in MIG mode; `lost` is one that has fallen off the bus.

    A uuid of None is not reported.
    """

    uuid: str | None
    name: str = "NVIDIA H200"
    memory: int = 140 * GIB
    used: int = GIB // 2
    pids: tuple[int, ...] = ()
    slices: tuple[Slice, ...] | None = None
    capability: tuple[int, int] = (9, 0)
    lost: bool = False
    cores: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for one in self.slices or ():
            one.gpu = self


@dataclass
class FakeDriver:
    """The driver. Without GPUs there is none: NVML's library is not found."""

    gpus: list[FakeGpu] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
        """Let pynvml answer as this driver would, and torch count as one for GPUs."""
        for name in vars(type(self)):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))
        monkeypatch.setattr(environment, "package_version", lambda name: "2.13.0")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        return self

    def nvmlInit(self) -> None:
        if not self.gpus:
            raise error("LIBRARY_NOT_FOUND")

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if not 0 <= index < len(self.gpus):
            raise error("INVALID_ARGUMENT")
        if self.gpus[index].lost:
            raise error("GPU_IS_LOST")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu | Slice:
        for gpu in self.gpus:
            for handle in (gpu, *(gpu.slices or ())):
                if handle.uuid == uuid:
                    return alive(handle)
        raise error("NOT_FOUND")

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        if alive(handle).uuid is None:
            raise error("NOT_SUPPORTED")
        return str(handle.uuid)

    def nvmlDeviceGetName(self, handle: Any) -> str:
        if isinstance(alive(handle), Slice):
            return f"{handle.gpu.name} MIG {handle.profile}"
        return str(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> SimpleNamespace:
        alive(handle)
        return SimpleNamespace(
            total=handle.memory, used=handle.used, free=handle.memory - handle.used
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=GIB) for pid in alive(handle).pids]

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        if isinstance(alive(handle), Slice):
            raise error("INVALID_ARGUMENT")
        enabled = int(handle.slices is not None)
        return [enabled, enabled]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        return 0 if alive(handle).slices is None else 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Slice:
        slices = alive(handle).slices or ()
        if index >= len(slices):
            raise error("NOT_FOUND")
        found: Slice = slices[index]
        return found

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Any) -> FakeGpu:
        if not isinstance(alive(handle), Slice):
            raise error("INVALID_ARGUMENT")
        assert handle.gpu is not None
        return handle.gpu

    def nvmlDeviceGetGpuInstanceId(self, handle: Any) -> int:
        return int(alive(handle).instances[0])

    def nvmlDeviceGetComputeInstanceId(self, handle: Any) -> int:
        return int(alive(handle).instances[1])

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:
        if isinstance(alive(handle), Slice):
            raise error("NOT_SUPPORTED")
        capability: tuple[int, int] = handle.capability
        return capability

    def nvmlDeviceGetCpuAffinity(self, handle: Any, size: int) -> list[int]:
        if isinstance(alive(handle), Slice) or not handle.cores:
            raise error("NOT_SUPPORTED")
        bits = sum(1 << core for core in handle.cores)
        return [bits >> 64 * word & (2**64 - 1) for word in range(size)]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        if isinstance(alive(handle), Slice):
            raise error("NOT_SUPPORTED")
        return 5_000


def error(name: str) -> pynvml.NVMLError:
    """Return NVML's error of this name, of the class that pynvml raises."""
    made: pynvml.NVMLError = pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{name}"))
    return made


def alive(handle: Any) -> Any:
    """Return the handle. Raises what NVML raises for a GPU that has fallen off the bus."""
    gpu = handle.gpu if isinstance(handle, Slice) else handle
    if gpu.lost:
        raise error("GPU_IS_LOST")
    return handle


def gpus(*letters: str, **settings: Any) -> list[FakeGpu]:
    """Return GPUs whose UUIDs consist of these letters: 'GPU-aaaaaaaa-…'."""
    return [FakeGpu(uuid_of(letter), **settings) for letter in letters]


def uuid_of(letter: str, prefix: str = "GPU") -> str:
    """Return a whole UUID made of one letter."""
    return f"{prefix}-{letter * 8}-{letter * 4}-{letter * 4}-{letter * 4}-{letter * 12}"


def need_no_gpu() -> None:
    """Skip the test where there is a real driver."""
    import torch  # not above: suites that stand for those of others import this module

    if torch.cuda.is_available():
        pytest.skip("has real GPUs")
