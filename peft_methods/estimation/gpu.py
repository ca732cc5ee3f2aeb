"""The GPU that an estimate is for: a device with known rates, or a size of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.estimation.estimator import Device, Estimator
from peft_methods.utils import units
from peft_methods.utils.errors import OptionError

SIZE = re.compile(r"[\d.,]+\s*[kmgt]i?b?", re.IGNORECASE)  # 16GB, but not 4090 nor 3090 Ti
ADVICE = "or give its memory, such as 16GB."
SMALLEST, LARGEST = 1e8, 1e13  # bytes; anything else is another unit than was meant


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and memory. `device` has its rates, None if only the memory is known."""

    name: str
    memory_bytes: int
    device: Device | None = None


def gpu_of(text: str, estimator: Estimator) -> Gpu:
    """Parse "T4" or "16GB". Raises `OptionError` for an unknown GPU, with the nearest name."""
    wanted = text.strip()
    if not SIZE.fullmatch(wanted):
        try:
            device = estimator.device(wanted)
        except OptionError as error:
            text = str(error)
            advice = "" if ADVICE in text else f" O{ADVICE[1:]}"
            raise OptionError(f"{text}{advice}", setting="gpu") from None
        return Gpu(device.name, device.memory_bytes, device)
    try:
        size = units.parse(wanted, "bytes")
    except units.UnitError as error:
        raise OptionError(f"gpu {error}.", setting="gpu") from None
    if size is None or not SMALLEST <= size.value <= LARGEST:
        raise OptionError(
            f"gpu {text!r} should be the memory of a GPU, such as 16GB or 40GiB, or its name.",
            setting="gpu",
        )
    return Gpu(wanted, int(size.value))
