"""Options for where runs happen and how long they may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.cli import parsing
from peft_methods.profiling.environment import find_device
from peft_methods.runs.limits import DEFAULT_RETRIES, parse_retries, parse_timeout
from peft_methods.utils.errors import OptionError


def execution_of(
    executor: str,
    workers: str | int | None,
    timeout: str | float | None = None,
    retries: str | int = DEFAULT_RETRIES,
    **of_cluster: Any,
) -> dict[str, Any]:
    """Return the fields of `Options` for how runs are executed. Raises `OptionError`."""
    return {
        **executor_of(executor, workers, **of_cluster),
        "timeout": parse_timeout(timeout),
        "retries": parse_retries(retries),
    }


def executor_of(
    name: str,
    workers: str | int | None,
    *,
    devices: str | Sequence[str | int] | None = None,
    slurm: Sequence[str] | Mapping[str, str] = (),
    detach: bool = False,
) -> dict[str, Any]:
    """Return the fields of `Options` for where runs happen.

    Raises `OptionError` for an executor that cannot be imported or reached.
    """
    from peft_methods.runs.executors import registry
    from peft_methods.runs.executors.gpu_choice import choose_gpus, parse_devices

    if name == registry.SLURM:
        from peft_methods.runs.executors.slurm.request import parse_request, resolve

        if devices is not None:
            raise OptionError(
                f"devices {devices!r} names GPUs of this machine, and the executor is {name!r}. "
                f"Leave it out; gpu=TYPE in slurm chooses the kind of GPU.",
                setting="devices",
            )
        number = parsing.workers_of(workers, on_cluster=True)
        values = slurm if isinstance(slurm, Mapping) else parse_request(slurm)
        request = resolve(values, number)
        return {"executor": name, "workers": number, "request": request, "detach": detach}
    number, chosen = parsing.workers_of(workers), parse_devices(devices)
    for setting, is_set in (("slurm", slurm), ("detach", detach)):
        if is_set:
            raise OptionError(
                f"{setting} needs the executor 'slurm', and it is {name!r}.", setting="executor"
            )
    if name != registry.LOCAL:
        registry.executor_of(name)
    elif number is not None and find_device() != "cpu":
        choose_gpus(chosen, number)
    return {"executor": name, "workers": number, "devices": chosen}
