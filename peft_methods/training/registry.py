"""All engines by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_methods.training.cuda_graphs.engine import CudaGraphsEngine
from peft_methods.training.trainer.engine import TrainerEngine
from peft_methods.utils.errors import OptionError, unknown

if TYPE_CHECKING:
    from peft_methods.training.engine import Engine


# Adding an engine changes no fingerprint: see `code_fingerprint`.
IS_REGISTRY = True
AUTO = "auto"
_ALL: tuple[Engine, ...] = (TrainerEngine(), CudaGraphsEngine())
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}
ENGINE_PHASES = tuple(phase for engine in _ALL for phase in engine.phases)
ALIASES = {alias: engine.name for engine in _ALL for alias in engine.aliases}
DEFAULT = min(_ALL, key=lambda engine: engine.priority).name


def engine_of(name: str) -> Engine:
    """Return the engine of this name. Raises `OptionError`."""
    name = ALIASES.get(name, name)
    if name not in ENGINES:
        raise OptionError(unknown("engine", name, (AUTO, *ENGINES)), setting="engine")
    return ENGINES[name]


def choose_engine(requested: str, device: str) -> str:
    """Return the engine's name; for `auto` the one with the highest priority on this device.

    Raises `OptionError` for an unknown engine and for one that cannot run on the device.
    """
    kind = device.partition(":")[0]
    fitting = [engine for engine in ENGINES.values() if kind in engine.devices]
    if requested == AUTO:
        return max(fitting, key=lambda engine: engine.priority).name
    engine = engine_of(requested)
    if engine not in fitting:
        allowed = ", ".join([AUTO, *(one.name for one in fitting)])
        raise OptionError(
            f"engine {engine.name!r} needs an NVIDIA GPU and none is visible. "
            f"Allowed here: {allowed}.",
            setting="engine",
        )
    return engine.name
