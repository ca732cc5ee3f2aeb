"""Which methods and installed versions can train one run over several GPUs."""

from __future__ import annotations

import re
from importlib import metadata

from peft_methods.methods.base import Method
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Budget
from peft_methods.utils.errors import OptionError

# The oldest versions that were tried. Earlier ones shard models in other ways, or not at all.
NEEDED = {"torch": (2, 11), "transformers": (5, 17), "accelerate": (1, 15)}
NEEDED_IN_4_BITS = {"bitsandbytes": (0, 50)}


def unsupported(
    method: Method, architecture: Architecture, device: str, budget: Budget
) -> str | None:
    """Return why a method cannot train such a model on these devices, or None if it can."""
    return method.unsupported(architecture, device) or unsupported_on_several(method, budget)


def unsupported_on_several(method: Method, budget: Budget) -> str | None:
    """Return why a method cannot be trained with the budget's strategy, or None if it can."""
    strategy, able = budget.strategy, method.info.strategies
    if strategy is None:
        return None
    if strategy not in able:
        return f"{method.title} cannot be trained with budget.strategy = {strategy!r}: set " + (
            f"budget.strategy = {able[0]!r}" if able else "budget.gpus = 1"
        )
    if strategy == "fsdp" and method.info.quantization:
        return too_old(NEEDED_IN_4_BITS, f"{method.title} with budget.strategy = 'fsdp'")
    return None


def check_versions(budget: Budget) -> None:
    """Raise `OptionError` if the installed libraries are too old for several GPUs."""
    if budget.gpus > 1 and (problem := too_old(NEEDED, f"budget.gpus = {budget.gpus}")):
        raise OptionError(f"{problem}, or set budget.gpus = 1.", setting="budget.gpus")


def too_old(needed: dict[str, tuple[int, int]], what: str) -> str | None:
    """Return which installed library is too old for something, and what to do; None if none is."""
    for name, wanted in needed.items():
        installed = metadata.version(name)
        found = tuple(int(one) for one in re.findall(r"\d+", installed)[:2])
        if found < wanted:
            version = ".".join(map(str, wanted))
            return f"{what} needs {name} {version} or newer, not {installed}: update it"
    return None
