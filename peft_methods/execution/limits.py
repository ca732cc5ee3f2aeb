"""How long a cell may take and how often it is tried again, as users write it."""

from __future__ import annotations

import contextlib

from peft_methods.errors import OptionError
from peft_methods.units import UnitError, parse

DEFAULT_RETRIES = 1


def parse_timeout(value: str | float | None, name: str = "--peft-timeout ") -> float | None:
    """'10min' -> 600.0; a number is seconds. Raises `OptionError`."""
    if value is None or (isinstance(value, (int, float)) and value > 0):
        return value
    with contextlib.suppress(UnitError):
        found = parse(str(value), "seconds")
        if found is not None and found.unit and found.value > 0:
            return found.value
    raise OptionError(
        f"{name}{value!r} should be a time above 0 with its unit, for example 90s, 10min or 2h."
    )


def parse_retries(value: str | int, name: str = "--peft-retries ") -> int:
    """'2' -> 2. Raises `OptionError`."""
    text = str(value)
    if not (text.isascii() and text.isdecimal()):
        raise OptionError(
            f"{name}{value!r} should be a whole number of further attempts, 0 or more."
        )
    return int(text)
