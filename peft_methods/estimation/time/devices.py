"""GPUs and their published figures, looked up by name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from peft_methods.utils.errors import OptionError, nearest

GB, TERA = 1e9, 1e12
GIB = 2**30
SIZE_IN_NAME = re.compile(r"(?<!\d)(\d{2,3})\s*gi?b\b", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """A GPU's figures, as its vendor publishes them, in bytes, bytes/s, FLOP/s and watts.

    `memory` is what torch can allocate, which is less than the size in the name: `nominal` GB.
    `flops` has the rates of dense products by precision: "fp32", "half" (bf16 or fp16 with sums in
    fp32) and, with such tensor cores, "tf32" and "int8". `units` are streaming multiprocessors.
    """

    name: str
    memory: float
    nominal: float
    bandwidth: float
    units: int
    flops: Mapping[str, float]
    watts: float
    capability: str
    source: str
    aliases: tuple[str, ...]


@cache
def devices() -> Mapping[str, Device]:
    """Return all devices with published figures, by name."""
    text = resources.files(__package__).joinpath("devices.toml").read_text(encoding="utf-8")
    return {name: _device(name, values) for name, values in tomllib.loads(text).items()}


def find_device(name: str) -> Device:
    """Return the device of this name, or of torch's name for it.

    Case, spaces, punctuation, the vendor's name and, where only one device is meant, the size do
    not matter. Raises `OptionError`, which names the nearest device and all that are allowed.
    """
    known = _by_key()
    key = name_key(name)
    found = known.get(key) or known.get(_without_size(name))
    if found is not None:
        return found
    names = list(devices())
    near = nearest(name, names) or _nearest_key(key)
    raise OptionError(
        f"no published figures of a GPU {name!r}.{near} Known: {', '.join(names)}; "
        f"or give its memory, such as 16GB.",
        setting="gpu",
    )


def names_of(name: str) -> tuple[str, ...]:
    """Return a name and, of a device with published figures, its other names."""
    try:
        found = find_device(name)
    except OptionError:
        return (name,)
    return (name, found.name, *found.aliases)


def _device(name: str, values: Mapping[str, Any]) -> Device:
    rates = {key: values[key] * TERA for key in ("fp32", "tf32", "half", "int8") if key in values}
    return Device(
        name=name,
        memory=values["usable"] * GIB,
        nominal=values["memory"],
        bandwidth=values["bandwidth"] * GB,
        units=values["units"],
        flops=rates,
        watts=float(values["watts"]),
        capability=values["capability"],
        source=values["source"],
        aliases=tuple(values["aliases"]),
    )


@cache
def _by_key() -> Mapping[str, Device]:
    every = devices().values()
    aliases = {name_key(alias): one for one in every for alias in one.aliases}
    return {**aliases, **{name_key(one.name): one for one in every}}


def name_key(name: str) -> str:
    """Return a name without what does not tell devices apart."""
    words = re.findall(r"[a-z]+|\d+", name.casefold())
    plain = "".join(one for one in words if one not in {"nvidia", "tesla", "geforce", "gpu", "rtx"})
    return re.sub(r"(sxm)\d$|hbm\d?e?$", r"\1", plain)


def _without_size(name: str) -> str:
    """Return the key of the device whose name this is with its size, else an empty text."""
    match = SIZE_IN_NAME.search(name)
    if match is None:
        return ""
    bare = name_key(SIZE_IN_NAME.sub(" ", name))
    for key in (f"{bare.removesuffix('sxm')}{match[1]}gb", bare):
        found = _by_key().get(key)
        if found is not None and found.nominal == int(match[1]):
            return name_key(found.name)
    return ""


def _nearest_key(key: str) -> str:
    near = nearest(key, _by_key())
    return f" Did you mean {_by_key()[near.split(chr(39))[1]].name!r}?" if near else ""
