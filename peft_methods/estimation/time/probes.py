"""Probes that are kept in the user's cache, and the device that each was measured on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch

from peft_methods.estimation.time import probe
from peft_methods.estimation.time.devices import name_key, names_of
from peft_methods.estimation.time.rates import DeviceRates, MeasuredProduct
from peft_methods.profiling.environment import package_version, processor_name
from peft_methods.utils.cache import cached_value

KIND = "device_probes"  # in the cache
VERSION = 2  # of what is measured; another one is measured again


@dataclass(frozen=True)
class Probed:
    """A device and its measured rates, with the host, the day and the seconds of the measurement.

    `memory_bytes` and `capability` are 0 for a CPU.
    """

    rates: DeviceRates
    memory_bytes: int
    capability: tuple[int, int]
    host: str
    measured: str
    seconds: float


def measured(device: str, *, fresh: bool = False) -> Probed:
    """Return the kept probe of this machine's "cuda" or "cpu", or measure and keep one.

    `fresh` measures again. Rates of a CPU are those with torch's present number of threads. GPUs of
    one name share theirs.
    """
    name = probe.device_name(device)
    return from_stored(_kept(name, lambda: asdict(_measure(device)), fresh=fresh))


def kept(name: str) -> Probed | None:
    """Return the kept probe of a device by any of its names; None without one.

    It was measured by this user with the same versions of torch and bitsandbytes.
    """
    for one in names_of(name):
        try:
            return from_stored(_kept(one, _missing))
        except LookupError:
            continue
    return None


def from_stored(values: Mapping[str, Any]) -> Probed:
    """Return what `asdict` and JSON made plain."""
    own = values["rates"]
    products = tuple(MeasuredProduct(**one) for one in own["products"])
    major, minor = values["capability"]
    rates = DeviceRates(**{**own, "products": products})
    return Probed(**{**values, "rates": rates, "capability": (major, minor)})


def _measure(device: str) -> Probed:
    started = time.perf_counter()
    rates = probe.probe(device)
    memory, capability = 0, (0, 0)
    if device == "cuda":
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        capability = torch.cuda.get_device_capability()
    seconds = round(time.perf_counter() - started, 1)
    return Probed(rates, memory, capability, processor_name(), str(date.today()), seconds)


def _kept(name: str, make: Callable[[], Any], *, fresh: bool = False) -> Any:
    key = [VERSION, name_key(name), torch.__version__, package_version("bitsandbytes")]
    return cached_value(KIND, key, make, fresh=fresh)


def _missing() -> Any:
    raise LookupError
