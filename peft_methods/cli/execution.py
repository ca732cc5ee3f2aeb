"""Options for where runs happen and how long they may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.cli import parsing
from peft_methods.profiling.environment import find_device
from peft_methods.runs.executors.registry import LOCAL, RAY, SLURM
from peft_methods.runs.executors.registry import executor_of as executor_class
from peft_methods.runs.limits import (
    DEFAULT_ISOLATION,
    DEFAULT_RETRIES,
    parse_isolation,
    parse_retries,
    parse_timeout,
)
from peft_methods.utils.errors import OptionError

KIND_BY = {SLURM: "gpu=TYPE in slurm", RAY: "ray_kind"}


def execution_of(
    executor: str,
    workers: str | int | None,
    timeout: str | float | None = None,
    retries: str | int = DEFAULT_RETRIES,
    isolation: str = DEFAULT_ISOLATION,
    **of_cluster: Any,
) -> dict[str, Any]:
    """Return the fields of `Options` for how runs are executed. Raises `OptionError`."""
    return {
        **executor_of(executor, workers, **of_cluster),
        "timeout": parse_timeout(timeout),
        "retries": parse_retries(retries),
        "isolation": parse_isolation(isolation),
    }


def executor_of(
    name: str,
    workers: str | int | None,
    *,
    devices: str | Sequence[str | int] | None = None,
    slurm: Sequence[str] | Mapping[str, str] = (),
    detach: bool = False,
    ray_address: str | None = None,
    ray_kind: str | None = None,
) -> dict[str, Any]:
    """Return the fields of `Options` for where runs happen.

    Raises `OptionError` for an executor that cannot be imported or reached, and for what another
    one needs.
    """
    of_ray = {"ray_address": ray_address, "ray_kind": ray_kind}
    _refuse_foreign(name, {RAY: of_ray, SLURM: {"slurm": slurm, "detach": detach}}, devices)
    if name == SLURM:
        from peft_methods.runs.executors.slurm.request import parse_request, resolve

        number = parsing.workers_of(workers, on_cluster=True)
        values = slurm if isinstance(slurm, Mapping) else parse_request(slurm)
        request = resolve(values, number)
        return {"executor": name, "workers": number, "request": request, "detach": detach}
    if name == RAY:
        from peft_methods.runs.executors.ray.request import request_of

        number = parsing.workers_of(workers, on_cluster=True)
        nodes = request_of(ray_address, number, ray_kind)
        return {"executor": name, "workers": number, "request": nodes}
    return _on_this_machine(name, workers, devices)


def _refuse_foreign(name: str, settings: Mapping[str, Mapping[str, Any]], devices: Any) -> None:
    """Raise `OptionError` for settings of another executor."""
    for executor, given in settings.items():
        for setting, value in given.items():
            if value and executor != name:
                raise OptionError(
                    f"{setting} needs the executor {executor!r}, and it is {name!r}.",
                    setting="executor",
                )
    if devices is not None and name in settings:
        raise OptionError(
            f"devices {devices!r} names GPUs of this machine, and the executor is {name!r}. "
            f"Leave it out: {KIND_BY[name]} chooses the kind of GPU.",
            setting="devices",
        )


def _on_this_machine(name: str, workers: Any, devices: Any) -> dict[str, Any]:
    from peft_methods.runs.executors.gpu_choice import choose_gpus, parse_devices

    number, chosen = parsing.workers_of(workers), parse_devices(devices)
    if name != LOCAL:
        executor_class(name)
    elif number is not None and find_device() != "cpu":
        choose_gpus(chosen, number)
    return {"executor": name, "workers": number, "devices": chosen}
