"""All executors by name: those of this package, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

from peft_methods.runs.executors.base import Executor
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.utils.entry_points import unusable
from peft_methods.utils.errors import OptionError, unknown

# Adding an executor changes no fingerprint: see `code_fingerprint`.
IS_REGISTRY = True
GROUP = "peft_methods.executors"  # entry points: NAME = "package.module:make_executor"
LOCAL, RAY, SLURM = "local", "ray", "slurm"
BUILT_IN = {
    LOCAL: "peft_methods.runs.executors.local:LocalExecutor",
    RAY: "peft_methods.runs.executors.ray.executor:RayExecutor",
    SLURM: "peft_methods.runs.executors.slurm.executor:SlurmExecutor",
}  # imported when chosen


class ExecutorFactory(Protocol):
    """Creates an executor: a class with this constructor, or a function."""

    def __call__(self, slots: Sequence[DeviceSet], scratch: Path, *request: Any) -> Executor:
        """Create an executor that runs `len(slots)` runs at a time.

        `slots` are the devices of each on this machine; an executor for others may take only their
        number and size. `scratch` is a folder for its files that the session removes. One for a
        cluster also gets the session's request, a `Request`.
        """


def executor_names() -> tuple[str, ...]:
    """Return the names of all executors, without importing any."""
    return (*BUILT_IN, *sorted({point.name for point in _installed()} - BUILT_IN.keys()))


def executor_of(name: str) -> ExecutorFactory:
    """Import the executor of this name. Raises `OptionError` with one line."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: ExecutorFactory = getattr(import_module(module), attribute)
        return built_in
    point = next((point for point in _installed() if point.name == name), None)
    if point is None:
        raise OptionError(unknown("executor", name, executor_names()), setting="executor")
    try:
        factory: ExecutorFactory = point.load()
        if not callable(factory):
            raise TypeError(f"{factory!r} cannot be called")
    except Exception as error:  # an import of another package may raise anything
        raise OptionError(unusable("an executor", point, error), setting="executor") from error
    return factory


def _installed() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=GROUP))
