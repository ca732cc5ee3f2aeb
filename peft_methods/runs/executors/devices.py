"""Devices as typed values: the GPUs and CPU threads that one run gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.profiling.gpus import GpuInfo
from peft_methods.runs.executors.cores import physical_cores, shares


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
    The run is kept to the CPU `cores`, and its process before its turn to `waiting_cores`, so that
    it disturbs no other run; without any, both may use all.
    """

    gpus: tuple[str, ...] = ()
    threads: int = 1
    cores: tuple[int, ...] = ()
    waiting_cores: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """Return 'cuda' or 'cpu', as a run's spec names its device."""
        return "cuda" if self.gpus else "cpu"

    @property
    def resources(self) -> Resources:
        """The number of its GPUs and threads."""
        return Resources(len(self.gpus), self.threads)

    def __or__(self, other: DeviceSet) -> DeviceSet:
        return DeviceSet(
            self.gpus + other.gpus,
            self.threads + other.threads,
            self.cores + other.cores,
            self.waiting_cores + other.waiting_cores,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that hide every other GPU from a process."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


NO_GPU = DeviceSet()


def default_workers(device: str, cores: int, gpus: int = 1) -> int:
    """Return how many runs train side by side.

    Two on a CPU, each with half the cores: small models scale badly over threads. One on each GPU.
    """
    if device == "cpu":
        return 2 if cores > 1 else 1
    return max(1, gpus)


def threads_per_run(device: str, cores: int, workers: int) -> int:
    """Return a run's share of the cores; at most two on a GPU, whose host only launches kernels.

    With sixteen threads, which wait by spinning, a training step took three times as long whenever
    the next run's process was importing its libraries.
    """
    share = max(1, cores // workers)
    return share if device == "cpu" else min(2, share)


def slots(
    device: str, cores: Sequence[int], workers: int, gpus: Sequence[GpuInfo] = ()
) -> tuple[DeviceSet, ...]:
    """Return one device set for each run that trains at a time.

    Several GPUs share out the cores; each gets those close to it first. One may use all.
    """
    threads = threads_per_run(device, len(cores), workers)
    if device == "cpu":
        return (DeviceSet((), threads),) * workers
    used = gpus[:workers] or [GpuInfo("0", "GPU", 0)]  # torch will say why there is none
    shared = (
        [((), ())]
        if len(used) <= 1
        else shares(physical_cores(cores), [gpu.near_cores for gpu in used])
    )
    return tuple(
        DeviceSet((gpu.uuid,), threads, of_run, of_next)
        for gpu, (of_run, of_next) in zip(used, shared, strict=True)
    )
