"""Devices as typed values: the GPUs and CPU threads that one run gets."""

from __future__ import annotations

import os
from dataclasses import dataclass

from peft_methods.profiling import nvml
from peft_methods.profiling.environment import find_device


@dataclass(frozen=True)
class Resources:
    """A number of GPUs and of CPU threads: what an executor has, or what one run needs."""

    gpus: int
    threads: int

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.gpus + other.gpus, self.threads + other.threads)

    def fits_in(self, other: Resources) -> bool:
        """Whether `other` has at least as much of everything."""
        return self.gpus <= other.gpus and self.threads <= other.threads


@dataclass(frozen=True)
class DeviceSet:
    """The devices of one run: GPUs by UUID, and CPU threads.

    A GPU whose driver reports no UUID is named by its entry in the caller's CUDA_VISIBLE_DEVICES.
    """

    gpus: tuple[str, ...] = ()
    threads: int = 1

    @property
    def kind(self) -> str:
        """Return 'cuda' or 'cpu', as a run's spec names its device."""
        return "cuda" if self.gpus else "cpu"

    @property
    def resources(self) -> Resources:
        """The number of its GPUs and threads."""
        return Resources(len(self.gpus), self.threads)

    def __or__(self, other: DeviceSet) -> DeviceSet:
        return DeviceSet(self.gpus + other.gpus, self.threads + other.threads)

    def environment(self) -> dict[str, str]:
        """Return the variables that hide every other GPU from a process."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


NO_GPU = DeviceSet()


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, within the caller's CUDA_VISIBLE_DEVICES."""
    if find_device() == "cpu":
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(nvml.uuid_of(str(index)) or str(index) for index in range(nvml.visible_gpus()))
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return tuple(nvml.uuid_of(name) or name for name in names)


def default_workers(device: str, cores: int) -> int:
    """Return how many runs train side by side.

    Two on a CPU, each with half the cores: small models scale badly over threads. One on a GPU.
    """
    return 2 if device == "cpu" and cores > 1 else 1


def threads_per_run(device: str, cores: int, workers: int) -> int:
    """Return a run's share of the cores; at most two on a GPU, whose host only launches kernels.

    With sixteen threads, which wait by spinning, a training step took three times as long whenever
    the next run's process was importing its libraries.
    """
    return max(1, cores // workers) if device == "cpu" else min(2, cores)


def slots(device: str, cores: int, workers: int) -> tuple[DeviceSet, ...]:
    """Return one device set for each run that trains at a time."""
    threads = threads_per_run(device, cores, workers)
    if device == "cpu":
        return (DeviceSet((), threads),) * workers
    return tuple(DeviceSet((gpu,), threads) for gpu in visible_gpus()[:workers])
