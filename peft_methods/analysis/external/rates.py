"""Headers of times and sizes per epoch, step or GPU: `time per epoch`, `GPU hours`, `GB/GPU`."""

from __future__ import annotations

import re

from peft_methods.utils.units import UNITS

EPOCH = frozenset(["epoch", "epoche", "époque", "轮"])
STEP = frozenset(["step", "it", "iter", "iteration"])
DEVICE = frozenset(["gpu", "device", "card"])
LINKS = frozenset("per each every a one 1 pro par avg average mean".split())  # noqa: SIM905
WHOLE = frozenset(["total", "train", "training", "time", "compute", "used", "all"])
CHIP = re.compile(r"gpus?|[abhlvtp]\d{1,3}[a-z]?|rtx")


def rate_of(words: list[str]) -> tuple[list[str], str, str] | None:
    """Return the words without what it is per, the column's field and its kind; None for none.

    The memory of one GPU is the peak as it is usually measured. Times of an epoch, and of all GPUs
    together, are columns of their own.
    """
    rest = [word for word in words if word not in LINKS]
    if len(rest) < 2:
        return None
    if EPOCH & set(rest):
        return [word for word in rest if word not in EPOCH], "epoch_seconds", "seconds"
    if rest[-1] in STEP and rest[-2] in UNITS["seconds"]:
        return [rest[-2]], "step_seconds", "seconds"
    return _per_gpu(rest, has_per="per" in words)


def _per_gpu(rest: list[str], *, has_per: bool) -> tuple[list[str], str, str] | None:
    is_size = has_per or rest[-2] in UNITS["bytes"]
    if is_size and (rest[-1] in DEVICE or (DEVICE & set(rest) and rest[-1] in UNITS["bytes"])):
        return [word for word in rest if word not in DEVICE], "peak_memory", "bytes"
    chips = [word for word in rest[:-1] if CHIP.fullmatch(word)]
    if chips and rest[-1] in UNITS["seconds"] and set(rest[:-1]) <= {*chips, *WHOLE}:
        return [rest[-1]], "gpu_seconds", "seconds"
    return None
