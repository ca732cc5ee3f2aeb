r"""Numbers and units of LaTeX's package siunitx: `\num{1.2e6}`, `\SI{9.5}{\giga\byte}`."""

from __future__ import annotations

import re

OPTIONS = r"\s*(?:\[[^\]]*\])?\s*"
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
NUMBER = re.compile(rf"\\(?:num|tablenum){OPTIONS}{GROUP}")
QUANTITY = re.compile(rf"\\(?:SI|qty|unit|si){OPTIONS}{GROUP}(?:\s*{GROUP})?")
RANGE = re.compile(rf"\\(?:SI|qty|num)range{OPTIONS}{GROUP}\s*{GROUP}(?:\s*{GROUP})?")
PARTS = {
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T", "milli": "m", "kibi": "Ki", "mebi": "Mi",
    "gibi": "Gi", "tebi": "Ti", "byte": "B", "second": "s", "minute": "min", "hour": "h",
    "day": "d", "watt": "W", "joule": "J", "percent": "%", "per": "/",
}  # fmt: skip


def without_siunitx(text: str) -> str:
    """Replace the commands of siunitx by their numbers and units as plain text."""
    if "\\" not in text:
        return text
    text = RANGE.sub(lambda m: f"{_number(m[1])}-{_number(m[2])} {_unit(m[3] or '')}", text)
    text = NUMBER.sub(lambda m: _number(m[1]), text)
    return QUANTITY.sub(_quantity, text)


def _quantity(match: re.Match[str]) -> str:
    if match[2] is None:  # \unit{\giga\byte} alone
        return _unit(match[1])
    return f"{_number(match[1])} {_unit(match[2])}"


def _number(text: str) -> str:
    r"""Return a number as it is written elsewhere: `1.2 +- 0.1`, `1.2 x 10^6` and `93.4(2)`."""
    text = re.sub(r"\+-|\\pm", "±", text)
    return re.sub(r"\s*(?:x|\\times|\\cdot)\s*10\s*\^\s*\{?([-+]?\d+)\}?", r"e\1", text).strip()


def _unit(text: str) -> str:
    return re.sub(r"\\([a-zA-Z]+)\s*", lambda m: PARTS.get(m[1], ""), text).replace(".", "").strip()
