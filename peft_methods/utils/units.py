"""Parse numbers as written in tables into base units.

Examples: `124.6M`, `67.13 min`, `3.24 GB`, `93.3%`, `0.937 ± 0.004`, and `–` for a missing value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType

from peft_methods.utils.errors import PeftMethodsError, nearest


class UnitError(PeftMethodsError):
    """A text that is not a number of the expected kind."""


def _table(*entries: tuple[str, float]) -> Mapping[str, float]:
    return MappingProxyType({name: factor for names, factor in entries for name in names.split()})


COUNTS = _table(
    ("k thousand", 1e3), ("m mio million millions", 1e6), ("b bn billion billions", 1e9),
    ("万", 1e4),
    ("亿 億", 1e8),
)  # fmt: skip
SECONDS = _table(
    ("ms milliseconds", 1e-3),
    ("s sec secs second seconds sekunden secondes segundos 秒", 1.0),
    ("m min mins minute minutes minuten minutos 分 分钟", 60.0),
    ("h hr hrs hour hours stunden std heures horas 小时 時間", 3600.0),
    ("d day days", 86400.0),
)
BYTES = _table(
    ("b byte bytes", 1.0), ("kb", 1e3), ("mb m", 1e6), ("gb g go", 1e9), ("tb", 1e12),
    ("kib", 2.0**10), ("mib", 2.0**20), ("gib", 2.0**30), ("tib", 2.0**40),
)  # fmt: skip
SHARES = _table(("% pct percent", 0.01))
JOULES = _table(("j joule joules", 1.0), ("kj", 1e3), ("wh", 3600.0), ("kwh", 3.6e6))
PLAIN: Mapping[str, float] = MappingProxyType({})
UNITS = {
    "count": COUNTS,
    "seconds": SECONDS,
    "bytes": BYTES,
    "share": SHARES,
    "score": SHARES,
    "joules": JOULES,
    "plain": PLAIN,
    "loss": PLAIN,
}  # by kind; factors to the base unit

SIGNED = frozenset({"score"})  # a correlation may be below zero

MISSING = frozenset(
    {
        "", "-", "--", "---", "–", "—", "−", "n/a", "n.a.", "na", "nan", "none", "null", "?", "/",
        "...", "…", "tbd", "tba", "pending", "skipped", "unknown", "not available",
        "not applicable", "not reported", "not measured", "not run",
    }
)  # fmt: skip
NOT_FINITE = frozenset({"nan", "inf", "+inf", "-inf"})
NUMBER = re.compile(
    r"(?P<about>[~≈<>≤≥]?)\s*"
    r"(?P<number>[-−+]?(?:[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)|\d+)?"
    r"(?:\.\d*)?(?:e[-−+]?\d{1,3})?)"
    r"\s*(?P<unit>%|[a-z万亿億秒分钟小时時間]*)\s*\+?"
    r"(?:\s*(?:±|\+/-|\+-)\s*(?P<spread>\d*\.?\d+)\s*(?P<same>%|[a-z]*))?",
    re.ASCII,
)
# 1:23:45, 47:10 and 2 days, 3:04:05; the fraction of a second is optional
CLOCK = re.compile(
    r"(?:(?P<days>\d{1,3})\s*(?:d|days?),?\s*)?(?:(?P<hours>\d{1,4}):)?"
    r"(?P<minutes>\d{1,2}):(?P<seconds>\d{2}(?:\.\d{1,9})?)",
    re.ASCII,
)
PART = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([a-z]+)?[\s,]*", re.ASCII)  # of 2h 13m and 1h05
RANGE = re.compile(r"(\S+?)\s*(?:[-–—]|to)\s*(\S+(?:\s*[%a-z]+)?)", re.ASCII)


COMMA = re.compile(
    r"[-−+~]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:\.\d{3})+),\d+", re.ASCII
)  # 0,93 and 1.327,4
DOTTED = re.compile(r"^~?[1-9]\d{0,2}(?:\.\d{3})+(?=,|\s*[%a-zA-Z]*$)", re.ASCII)  # 124.647.170


def has_decimal_comma(text: str) -> bool:
    """Whether a comma can only be a decimal comma: `0,933`, `428,9 s`; not in `124,647`."""
    match = COMMA.match(text.strip())
    return match is not None and (
        match[0].startswith("0,") or "." in match[0] or not re.search(r",\d{3}$", match[0])
    )


def with_points(text: str) -> str:
    """Replace decimal commas by points and drop thousands points: `1.327,4 s` -> `1327.4 s`."""
    ungrouped = DOTTED.sub(lambda match: match[0].replace(".", ""), text.strip())
    return re.sub(r"(?<=\d),(?=\d)", ".", ungrouped)


@dataclass(frozen=True)
class Quantity:
    """A number in its base unit, with the unit as written (or "") and its precision.

    `low` to `high` is the range of values that may have been rounded or truncated to these digits.
    `spread` is the number after ±, in the base unit too. Of a range (`10-12`) `low` and `high` are
    its ends, and `value` is their middle.
    """

    text: str
    value: float
    unit: str
    low: float
    high: float
    spread: float | None = None
    is_range: bool = False

    def scaled(self, factor: float) -> Quantity:
        """Return the quantity with value, range and spread multiplied by a factor."""
        spread = None if self.spread is None else self.spread * factor
        return replace(
            self,
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            spread=spread,
        )


def parse(text: str, kind: str) -> Quantity | None:
    """Parse a quantity of this kind (a key of UNITS) into its base unit; None for a missing value.

    A number without a unit is taken as it is. Raises `UnitError` for a text that is not a number,
    is negative, or has a unit of another kind.
    """
    wanted = " ".join(text.split()).casefold()  # also replaces non-breaking spaces
    if is_missing(wanted):
        return None
    if kind == "seconds" and (duration := _duration(text, wanted)) is not None:
        return duration
    match = NUMBER.fullmatch(wanted)
    digits = re.sub("[, ]", "", match["number"]).replace("−", "-") if match else ""
    if match is None or not any(character.isdigit() for character in digits.partition("e")[0]):
        if (between := _range(text, wanted, kind)) is not None:
            return between
        raise UnitError(
            f"{text!r} is not a number; write digits with a decimal point and an optional unit, "
            "or – for a missing value"
        )
    unit, number = match["unit"] or match["same"] or "", Decimal(digits)
    if number < 0 and kind not in SIGNED:
        raise UnitError(
            f"{text!r} is below zero; a {kind if kind != 'plain' else 'number here'} cannot be"
        )
    if unit and unit not in UNITS[kind]:
        raise UnitError(
            f"{text!r}: unknown unit {unit!r}.{nearest(unit, UNITS[kind])} "
            f"Allowed: {', '.join(UNITS[kind]) or 'none'}"
        )
    if match["same"] and match["same"] != unit:
        raise UnitError(f"{text!r} has different units before and after ±; use the same for both")
    if not math.isfinite(float(number * Decimal(repr(UNITS[kind].get(unit, 1.0))))):
        raise UnitError(f"{text!r} is too large for a {kind if kind != 'plain' else 'number'}")
    exact = (
        kind == "count"
        and not unit
        and not match["about"]
        and "e" not in digits
        and "." not in digits
    )
    return _quantity(text.strip(), number, unit, kind, match["spread"], integral=exact)


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: `–`, `N/A (skipped)`, `TBD`."""
    bare = text.strip().casefold()
    return bare in MISSING or bool(re.fullmatch(r"n/?a\s*[(\[:,–-].*", bare))


def _duration(text: str, wanted: str) -> Quantity | None:
    """Parse `1:23:45`, `47:10`, `2h 13m` or `1h05`; None if it is written another way.

    Two numbers are minutes and seconds, as progress bars write them.
    """
    if clock := CLOCK.fullmatch(wanted):
        days, hours, minutes, seconds = (float(one or 0) for one in clock.groups())
        if seconds >= 60 or (minutes >= 60 and clock["hours"]):
            return None
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        return Quantity(text.strip(), total, "h:m:s", max(0.0, total - 0.5), total + 1.0)
    parts = PART.findall(wanted)
    if len(parts) < 2 or "".join(PART.sub("", wanted).split()):
        return None
    total, last = 0.0, math.inf
    for number, name in parts:
        factor = SECONDS.get(name) if name else last / 60 if last in {3600.0, 60.0} else None
        if factor is None or factor >= last:
            return None
        total, last = total + float(number) * factor, factor
    return Quantity(text.strip(), total, "h:m:s", max(0.0, total - last / 2), total + last)


def _range(text: str, wanted: str, kind: str) -> Quantity | None:
    """Parse `10-12 GB`; None if it is no range of two ascending numbers of one unit."""
    ends = RANGE.fullmatch(wanted)
    if ends is None:
        return None
    try:
        low, high = parse(ends[1], kind), parse(ends[2], kind)
    except UnitError:
        return None
    if low is None or high is None or low.is_range or high.is_range:
        return None
    if not low.unit and high.unit in UNITS[kind]:
        low = replace(low.scaled(UNITS[kind][high.unit]), unit=high.unit)
    if low.unit != high.unit or not 0 <= low.value < high.value:
        return None
    middle = (low.value + high.value) / 2
    return Quantity(text.strip(), middle, low.unit, low.low, high.high, is_range=True)


def _quantity(
    text: str, number: Decimal, unit: str, kind: str, spread: str | None, *, integral: bool
) -> Quantity:
    """Build the quantity and its range.

    The range is half a step of the last digit below (rounding) to a whole step above (truncation).
    """
    factor, step = Decimal(repr(UNITS[kind].get(unit, 1.0))), _step(number)
    written_out = integral and step < 1000
    low, high = (number, number) if written_out else (number - step / 2, number + step)
    around = None if spread is None else float(Decimal(spread) * factor)
    return Quantity(
        text, float(number * factor), unit, float(low * factor), float(high * factor), around
    )


def _step(number: Decimal) -> Decimal:
    """Return the weight of the last significant digit: 10 for 110, 0.01 for 1.30."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    zeros = (
        len(digits) - len("".join(map(str, digits)).rstrip("0"))
        if exponent >= 0 and any(digits)
        else 0
    )
    return Decimal((0, (1,), exponent + zeros))


def parse_series(text: str, kind: str) -> tuple[Quantity, ...]:
    """Parse `0.31;0.22;0.20`; missing values are left out. Raises `UnitError`.

    Only a loss may be `nan` or `inf`.
    """
    if is_missing(text):
        return ()
    parts = [part.strip() for part in re.split(r"[;|]", text.strip().strip("[]"))]
    found = [
        _not_finite(part) if kind == "loss" and part.casefold() in NOT_FINITE else parse(part, kind)
        for part in parts
    ]
    return tuple(quantity for quantity in found if quantity is not None)


def _not_finite(text: str) -> Quantity:
    return Quantity(text, float(text), "", float(text), float(text))


def unit_of(words: list[str], kind: str) -> tuple[list[str], float | None]:
    """Split a column's name into name and unit factor: ['memory', 'mb'] -> ['memory'], 1e6.

    The unit is the last word, or a % that comes first.
    """
    if len(words) > 1 and words[-1] in UNITS[kind]:
        return words[:-1], UNITS[kind][words[-1]]
    if len(words) > 1 and words[0] == "%" and "%" in UNITS[kind]:
        return words[1:], UNITS[kind]["%"]
    return words, None


def format_duration(seconds: float) -> str:
    """Format a duration: '45 s', '3 min 20 s' or '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(size: float) -> str:
    """Format a size in decimal units: '0 B', '812 kB' or '1.4 GB'."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
