"""Numbers and lists as parts of English sentences. Functions that return Typst markup say so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.analysis.comparison import MetricSummary
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING
from peft_methods.tasks.metrics import Metric

SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def listed(items: Sequence[str], most: int | None = None) -> str:
    """Join items: 'a', 'a and b', 'a, b, and c'.

    Separates by semicolons if an item contains a comma. Beyond `most` items, gives the number of
    the others.
    """
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
    """Format a whole number, in words up to ten."""
    return SMALL[count] if 0 < count < len(SMALL) else f"{count:,}"


def counted(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: 'one seed', 'three seeds', 'no seeds'."""
    word = SMALL[0] if count == 0 else number(count)
    return f"{word} {one if count == 1 else many or one + 's'}"


def capital(text: str) -> str:
    """Capitalise the first letter."""
    return text[:1].upper() + text[1:]


def was(count: int) -> str:
    """Return 'was' or 'were'."""
    return "was" if count == 1 else "were"


def joined(*sentences: str) -> str:
    """Join the non-empty sentences into a paragraph."""
    return " ".join(text for text in sentences if text)


def sentence(text: str) -> str:
    """Capitalise the first letter and end with a full stop."""
    text = text.strip()
    return capital(text) + ("" if text.endswith((".", "!", "?")) else ".")


def tidy(text: str) -> str:
    """Typeset our own figures as papers do.

    77.5% without a space, a true minus sign, and no line break between a number and its unit.
    """
    text = re.sub(r"(?<=\d) %", "%", text)
    text = re.sub(r"(?<![\w.\u2212-])-(?=\d)", "\u2212", text)
    return re.sub(r"(?<=\d) (?=(?:s|ms|J|MiB|GiB)\b)", "\u00a0", text)


def formatted(name: str, value: float) -> str:
    """Format a metric's value with its unit."""
    return tidy(METRICS[name].format(value))


def with_spread(name: str, figure: MetricSummary | None) -> str:
    """Format mean ± standard deviation with the unit.

    The mean alone if there is one seed, and – if there is no value.
    """
    if figure is None:
        return MISSING
    if figure.deviation is None:
        return formatted(name, figure.mean)
    return tidy(METRICS[name].with_spread(figure.mean, figure.deviation)).replace(
        " ± ", "\u00a0±\u00a0"
    )


def gap(metric: Metric, difference: float) -> str:
    """Format a difference with its unit: '1.2 points', '0.012'."""
    return tidy(metric.gap(difference))


def plain(metric: Metric, value: float) -> str:
    """Format a value or a difference without its unit."""
    return tidy(metric.plain(value))


def interval(metric: Metric, low: float, high: float) -> str:
    """Format an interval without its unit."""
    return tidy(metric.range_text((low, high)))


def p_value(p: float) -> str:
    """Format a p-value with three digits, as markup."""
    return "\\< 0.001" if p < 0.001 else f"{p:.3f}"


def ratio(value: float) -> str:
    """Format a ratio: '0.63', '12', '0.0012', and '< 0.001' (markup) below that."""
    if value < 0.001:
        return "\\< 0.001"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def share(value: float) -> str:
    """Format a share of the whole as percent: '2.56%', '0.0034%'."""
    percent = 100 * value
    return (
        f"{percent:.2f}%"
        if percent >= 0.1 or percent == 0
        else f"{percent:.1g}%"
        if percent >= 1e-4
        else "\\< 0.0001%"
    )
