"""A scheduler for the devices of this machine."""

from __future__ import annotations

from pathlib import Path

from peft_methods.environment import usable_cores
from peft_methods.execution.base import Resources
from peft_methods.execution.devices import DeviceSet, slots
from peft_methods.execution.limits import DEFAULT_RETRIES
from peft_methods.execution.local import LocalExecutor
from peft_methods.execution.requests import RunRequests
from peft_methods.execution.scheduler import Scheduler
from peft_methods.execution.scratch import RunFolder
from peft_methods.store import Store


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
