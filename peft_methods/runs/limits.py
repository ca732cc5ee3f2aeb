"""Parsing of how runs are executed: timeout, number of retries, and isolation."""

from __future__ import annotations

import contextlib

from peft_methods.utils.errors import OptionError, unknown
from peft_methods.utils.units import UnitError, parse

DEFAULT_RETRIES = 1
WARM, FRESH = "warm", "fresh"
ISOLATIONS = (FRESH, WARM)
DEFAULT_ISOLATION = FRESH


def parse_timeout(value: str | float | None, setting: str = "timeout") -> float | None:
    """Parse '10min' to 600.0; a number is in seconds. Raises `OptionError`."""
    if value is None or (isinstance(value, (int, float)) and value > 0):
        return value
    with contextlib.suppress(UnitError):
        found = parse(str(value), "seconds")
        if found is not None and found.unit and found.value > 0:
            return found.value
    raise OptionError(
        f"{setting} {value!r} should be a time above 0 with its unit, for example 90s, 10min or "
        "2h.",
        setting=setting,
    )


def parse_retries(value: str | int) -> int:
    """Parse '2' to 2. Raises `OptionError`."""
    text = str(value)
    if not (text.isascii() and text.isdecimal()):
        raise OptionError(
            f"retries {text!r} should be a whole number of retries, 0 or more.", setting="retries"
        )
    return int(text)


def parse_isolation(value: str) -> str:
    """Check the name of a kind of isolation. Raises `OptionError`."""
    if value not in ISOLATIONS:
        raise OptionError(unknown("isolation", value, ISOLATIONS), setting="isolation")
    return value
