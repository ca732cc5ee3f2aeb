"""The device that an estimate is for: one with known rates, a size of memory, or the host."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.estimation.estimator import Device, Estimator
from peft_methods.estimation.time.devices import devices
from peft_methods.utils import units
from peft_methods.utils.errors import OptionError

# 16GB and 40 GiB, but not 4090, 3090 Ti or 16 sheep, which are names
SIZE = re.compile(r"[-−]?\d[\d.,]*\s*(gib|gb|mib|mb|g)", re.IGNORECASE)
SIZE_OF_A_NAME = re.compile(r" (\d+)GB$")
ADVICE = "or give its memory, such as 16GB."
HOST = "cpu"  # the name of this machine's processor
ON_HOST = "peaks of memory are those of the same runs on a GPU, which is what is modelled"
SMALLEST, LARGEST = 1e8, 1e13  # bytes; anything else is another unit than was meant


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and memory. `device` has its rates, None if only the memory is known.

    `note` says which size was taken where the given name stands for several. The processor of this
    machine (`is_host`) has times alone: what is known of memory is that of runs on a GPU.
    """

    name: str
    memory_bytes: int
    device: Device | None = None
    note: str = ""

    @property
    def is_host(self) -> bool:
        """Whether this is a processor, which has no memory of its own."""
        return self.device is not None and not self.memory_bytes


def gpu_of(text: str, estimator: Estimator) -> Gpu:
    """Parse "T4", "16GB" or "cpu". Raises `OptionError` with the nearest name of a GPU."""
    wanted = text.strip()
    if wanted.casefold() == HOST:
        host = estimator.device(HOST)
        return Gpu(host.name, host.memory_bytes, host, ON_HOST)
    if not SIZE.fullmatch(wanted):
        try:
            device = estimator.device(wanted)
        except OptionError as error:
            text = str(error)
            advice = "" if ADVICE in text else f" O{ADVICE[1:]}"
            raise OptionError(f"{text}{advice}", setting="gpu") from None
        return Gpu(device.name, device.memory_bytes, device, _note(wanted, device.name))
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


def _note(wanted: str, found: str) -> str:
    """Return which size was taken, if the GPU's name has one and the given name has none."""
    size = SIZE_OF_A_NAME.search(found)
    if size is None or size[1] in re.findall(r"\d+", wanted):
        return ""
    return f"{wanted} is taken as {found}; name another size with it, such as {_other(found)}"


def _other(found: str) -> str:
    """Return the name of the same GPU with another memory."""
    bare = SIZE_OF_A_NAME.sub("", found)
    names = [one for one in devices() if SIZE_OF_A_NAME.sub("", one) == bare and one != found]
    return next(iter(names), found)
