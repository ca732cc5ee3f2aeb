"""The part of a budget that spreads one run over several GPUs."""

from __future__ import annotations

from typing import Literal

from peft_methods.utils.errors import OptionError

Strategy = Literal["ddp", "fsdp"]
REPLICATED: Strategy = "ddp"


def checked_strategy(gpus: int, strategy: Strategy | None, batch_size: int) -> Strategy | None:
    """Return the strategy of a run over this number of GPUs; None for one.

    Raises `OptionError` for a strategy without several GPUs, and if these cannot share a batch.
    """
    if gpus == 1:
        if strategy is not None:
            raise OptionError(
                f"budget.strategy = {strategy!r} is for a run over several GPUs, and budget.gpus = "
                f"1. Set budget.gpus = 2 or more, or leave out budget.strategy.",
                setting="budget.gpus",
            )
        return None
    if batch_size % gpus:
        raise OptionError(
            f"budget.batch_size = {batch_size} cannot be shared equally by budget.gpus = {gpus}: "
            f"it is the size of the whole batch. Set budget.batch_size = "
            f"{max(gpus, batch_size - batch_size % gpus)}, or another multiple of {gpus}.",
            setting="budget.batch_size",
        )
    return strategy or REPLICATED
