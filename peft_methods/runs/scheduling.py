"""Set-up of a scheduler: its executor by name, and the devices of each run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peft_methods.profiling.environment import find_device
from peft_methods.runs.executors.base import Request
from peft_methods.runs.executors.cores import own_cores
from peft_methods.runs.executors.devices import DeviceSet, default_workers, slots
from peft_methods.runs.executors.gpu_choice import choose_gpus
from peft_methods.runs.executors.registry import LOCAL, SLURM, executor_of
from peft_methods.runs.executors.scratch import RunFolder, SharedFolder
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.limits import DEFAULT_RETRIES, FRESH
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.store import Store


@dataclass(frozen=True)
class SessionDevices:
    """The devices of a session: a set for each run at a time, and remarks on their choice."""

    device: str
    device_name: str
    workers: int
    slots: tuple[DeviceSet, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, options: ExperimentOptions) -> SessionDevices:
        """Choose from what this process or the cluster has. Raises `OptionError`."""
        request, workers = options.request, options.workers
        if request is not None:
            made = request.slots()[:workers]
            return cls(request.device, request.device_name, len(made), made)
        device, cores = find_device(), own_cores()
        # Another executor than the local one may have more.
        choice = choose_gpus(options.devices, workers if options.executor == LOCAL else None)
        count = workers or default_workers(device, len(cores), len(choice.gpus))
        made = slots(device, cores, count, choice.gpus)
        return cls(device, choice.device_name, count, made, choice.notes)

    def scheduler(self, store: Store, options: ExperimentOptions) -> Scheduler:
        """Return the scheduler of a session on these devices."""
        return new_scheduler(
            store,
            self.device,
            workers=self.workers,
            save_models=options.save_models,
            timeout=options.timeout,
            retries=options.retries,
            checkpoint=options.checkpoint,
            executor=options.executor,
            devices=self.slots,
            request=options.request,
            isolation=options.isolation,
            without_weights=options.dry_run,
        )

    @property
    def kind(self) -> tuple[str, int]:
        """What a run's figures depend on: the name of the device, and the threads of a run."""
        return self.device_name, self.slots[0].threads


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
    isolation: str = FRESH,
    without_weights: bool = False,
) -> Scheduler:
    """Return a scheduler that runs `workers` runs at a time.

    `devices` are those of each run; by default the visible GPUs and an equal share of the cores.
    `request` is what the executor asks of a cluster. `isolation` says whether runs may share a
    process. `without_weights`: recipes are checked for a dry run.
    Raises `OptionError` for an unknown or unusable executor.
    """
    make_executor = executor_of(executor)
    devices = devices or slots(device, own_cores(), workers, choose_gpus(workers=workers).gpus)
    folder = SharedFolder(store, SLURM) if executor == SLURM else RunFolder(store)
    needs = devices[0].resources
    requests = RunRequests(
        store, folder, device, needs, save_models, checkpoint, isolation, without_weights
    )
    made = make_executor(devices, folder.path, *([] if request is None else [request]))
    return Scheduler(made, requests, timeout=timeout, retries=retries)
