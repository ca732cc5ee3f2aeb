"""A scheduler for the devices of this machine."""

from __future__ import annotations

from pathlib import Path

from peft_methods.profiling.environment import usable_cores
from peft_methods.runs.executors.base import Resources
from peft_methods.runs.executors.devices import DeviceSet, slots
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.limits import DEFAULT_RETRIES
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.store import Store


def local_scheduler(
    store: Store,
    device: str,
    *,
    workers: int,
    save_models: Path | None = None,
    timeout: float | None = None,
    retries: int = DEFAULT_RETRIES,
    checkpoint: bool = False,
    devices: tuple[DeviceSet, ...] | None = None,
) -> Scheduler:
    """Return a scheduler that runs `workers` runs at a time in processes of this machine.

    `devices` are those of each run; by default the visible GPUs and an equal share of the cores.
    """
    devices = devices or slots(device, usable_cores(), workers)
    folder = RunFolder(store)
    requests = RunRequests(store, folder, device, save_models, checkpoint)
    needs = Resources(len(devices[0].gpus), devices[0].threads)
    executor = LocalExecutor(devices, folder.path)
    return Scheduler(executor, requests, needs, timeout=timeout, retries=retries)
