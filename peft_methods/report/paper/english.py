"""Figures and lists as English sentences have them; what comes out is Typst markup where it says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.comparing import Figure
from peft_methods.metrics import METRICS
from peft_methods.report.shown import NOTHING

SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def listed(items: Sequence[str], most: int | None = None) -> str:
    """'a', 'a and b', 'a, b, and c'; semicolons where an item has a comma; beyond `most`, how many more there are."""
    shown = (
        list(items)
        if most is None or len(items) <= most
        else [*items[: most - 1], f"{number(len(items) - most + 1)} more"]
    )
    if len(shown) < 3:
        return " and ".join(shown)
    comma = ";" if any("," in item for item in shown) else ","
    return f"{comma} ".join([*shown[:-1], f"and {shown[-1]}"])


def number(count: int) -> str:
    """A whole number: in words up to ten."""
    return SMALL[count] if 0 < count < len(SMALL) else f"{count:,}"


def counted(count: int, one: str, many: str = "") -> str:
    """'one seed', 'three seeds', 'no seeds'."""
    word = SMALL[0] if count == 0 else number(count)
    return f"{word} {one if count == 1 else many or one + 's'}"


def capital(text: str) -> str:
    """With a capital at its start."""
    return text[:1].upper() + text[1:]


def was(count: int) -> str:
    """'was' or 'were'."""
    return "was" if count == 1 else "were"


def joined(*sentences: str) -> str:
    """A paragraph of those sentences that say anything."""
    return " ".join(text for text in sentences if text)


def sentence(text: str) -> str:
    """With a capital at its start and a full stop at its end."""
    text = text.strip()
    return capital(text) + ("" if text.endswith((".", "!", "?")) else ".")


def tidy(text: str) -> str:
    """Our own figures as papers print them: 77.5%, a true minus, no line break between a number and its unit."""
    text = re.sub(r"(?<=\d) %", "%", text)
    text = re.sub(r"(?<![\w.\u2212-])-(?=\d)", "\u2212", text)
    return re.sub(r"(?<=\d) (?=(?:s|ms|J|MiB|GiB)\b)", "\u00a0", text)


def said(name: str, value: float) -> str:
    """A metric's value with its unit."""
    return tidy(METRICS[name].format(value))


def with_spread(name: str, figure: Figure | None) -> str:
    """Mean ± standard deviation with the unit; the mean alone where one seed shows no spread; – where there is nothing."""
    if figure is None:
        return NOTHING
    if figure.deviation is None:
        return said(name, figure.mean)
    return tidy(METRICS[name].with_spread(figure.mean, figure.deviation)).replace(
        " ± ", "\u00a0±\u00a0"
    )


def points(difference: float) -> str:
    """A difference of shares in points."""
    return tidy(f"{100 * difference:.1f}")


def interval(low: float, high: float) -> str:
    """Of shares, in points."""
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """As markup, to three digits."""
    return "\\< 0.001" if p < 0.001 else f"{p:.3f}"


def ratio(value: float) -> str:
    """'0.63', '12', '0.0012', and '< 0.001' (markup) for less."""
    if value < 0.001:
        return "\\< 0.001"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def share(value: float) -> str:
    """A share of the whole: '2.56%', '0.0034%'."""
    percent = 100 * value
    return (
        f"{percent:.2f}%"
        if percent >= 0.1 or percent == 0
        else f"{percent:.1g}%"
        if percent >= 1e-4
        else "\\< 0.0001%"
    )
