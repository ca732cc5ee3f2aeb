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


def choose_engine(requested: str, device: str, gpus: int = 1) -> str:
    """Return the engine's name; for `auto` the one with the highest priority on these devices.

    Raises `OptionError` for an unknown engine and for one that cannot run on them.
    """
    kind = device.partition(":")[0]
    fitting = [engine for engine in ENGINES.values() if kind in engine.devices]
    able = [engine for engine in fitting if gpus == 1 or engine.trains_on_several_gpus]
    if requested == AUTO:
        return max(able, key=lambda engine: engine.priority).name
    engine = engine_of(requested)
    if engine in fitting and engine not in able:
        raise OptionError(
            f"engine {engine.name!r} trains on one GPU, and budget.gpus = {gpus}. Allowed here: "
            f"{', '.join([AUTO, *(one.name for one in able)])}.",
            setting="engine",
        )
    if engine not in fitting:
        allowed = ", ".join([AUTO, *(one.name for one in fitting)])
        raise OptionError(
            f"engine {engine.name!r} needs an NVIDIA GPU and none is visible. "
            f"Allowed here: {allowed}.",
            setting="engine",
        )
    return engine.name
