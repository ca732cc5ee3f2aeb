"""Set-up of a scheduler: its executor by name, and the devices of each run."""

from __future__ import annotations

from pathlib import Path

from peft_methods.profiling.environment import find_device, usable_cores
from peft_methods.runs.executors.base import Request
from peft_methods.runs.executors.devices import DeviceSet, default_workers, slots
from peft_methods.runs.executors.registry import LOCAL, executor_of
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.limits import DEFAULT_RETRIES
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.store import Store


def session_devices(
    request: Request | None, workers: int | None
) -> tuple[str, tuple[DeviceSet, ...]]:
    """Return the device that runs train on, and those of each: of this machine or of a cluster."""
    if request is not None:
        return request.device, request.slots()
    device, cores = find_device(), usable_cores()
    return device, slots(device, cores, workers or default_workers(device, cores))


def new_scheduler(
    store: Store,
    device: str,
    *,
    workers: int,
    save_models: Path | None = None,
    timeout: float | None = None,
    retries: int = DEFAULT_RETRIES,
    checkpoint: bool = False,
    devices: tuple[DeviceSet, ...] | None = None,
    executor: str = LOCAL,
    request: Request | None = None,
) -> Scheduler:
    """Return a scheduler that runs `workers` runs at a time.

    `devices` are those of each run; by default the visible GPUs and an equal share of the cores.
    `request` is what the executor asks of a cluster.
    Raises `OptionError` for an unknown or unusable executor.
    """
    make_executor = executor_of(executor)
    devices = devices or slots(device, usable_cores(), workers)
    folder = RunFolder(store)
    requests = RunRequests(store, folder, device, devices[0].resources, save_models, checkpoint)
    made = make_executor(devices, folder.path, *([] if request is None else [request]))
    return Scheduler(made, requests, timeout=timeout, retries=retries)
