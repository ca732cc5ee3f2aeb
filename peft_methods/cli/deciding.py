"""Parsing of how far seeds are added until the comparison is decided."""

from __future__ import annotations

from typing import Any

from peft_methods.analysis.margin import MARGIN, parse_margin
from peft_methods.runs.limits import parse_timeout
from peft_methods.runs.seed_plan import FEWEST, LARGEST_MOST, MOST
from peft_methods.utils.errors import OptionError


def seeds_to_decide(
    decide: str | None, most: int | str | None, time: str | float | None, margin: str | None
) -> dict[str, Any]:
    """Parse how far seeds are added until the comparison is decided, and the margin.

    Returns the options `seeds_max` (a method; None: none are added), `decide_seconds` (None: no
    limit) and `margin` (a fraction; that of the decision).
    """
    if decide is None:
        for setting, value in (("seeds_max", most), ("decide_time", time)):
            if value is not None:
                raise OptionError(
                    f"{setting} = {value!r} limits how many seeds are added, but none are without "
                    "a margin to decide by, for example 1pp.",
                    setting="decide",
                )
        return {"margin": MARGIN if margin is None else parse_margin(margin)}
    if margin is not None and parse_margin(margin) != parse_margin(decide):
        raise OptionError(
            f"the comparison is to be decided within {decide!r}, but the margin is {margin!r}. "
            "Give one of them.",
            setting="margin",
        )
    return {
        "margin": parse_margin(decide, "decide"),
        "seeds_max": _seeds_max(most),
        "decide_seconds": parse_timeout(time, "decide_time"),
    }


def _seeds_max(value: int | str | None) -> int:
    if value is None:
        return MOST
    text = str(value)
    if not (text.isascii() and text.isdecimal() and FEWEST <= int(text[:9]) <= LARGEST_MOST):
        raise OptionError(
            f"seeds_max = {text!r} should be the most seeds a method may have, a whole number from "
            f"{FEWEST} to {LARGEST_MOST}.",
            setting="seeds_max",
        )
    return int(text)
