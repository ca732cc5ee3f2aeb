"""The margin of equality: differences in quality up to it count as none."""

from __future__ import annotations

import math
import re

from peft_methods.tasks.metrics import Metric
from peft_methods.utils.errors import OptionError

MARGIN = 0.01  # one point, unless another margin is asked for
LARGEST = 0.5
ROUNDING = 1e-9  # in floating point, 0.29 * 100 is slightly less than 29


def parse_margin(text: str, setting: str = "margin") -> float:
    """Parse '1pp' or '0.5pp' (points) as a fraction. Raises `OptionError`."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*(?:pp|points?)", text.strip(), re.ASCII)
    margin = float(match[1]) / 100 if match else 0.0
    if not 0 < margin <= LARGEST:
        raise OptionError(
            f"{setting} {text!r} must be a number of points above 0 and up to {100 * LARGEST:g}, "
            "for example 1pp or 0.5pp.",
            setting=setting,
        )
    return margin


def points(fraction: float) -> str:
    """Format a fraction as points, rounded up to one decimal: 0.0084 -> '0.9 points'.

    Rounded up, since what is within 0.84 points is not within 0.8.
    """
    tenths = math.ceil(1000 * fraction - ROUNDING)
    return "1 point" if tenths == 10 else f"{tenths / 10:g} points"


def margin_in(metric: Metric, margin: float, level: float | None) -> float:
    """Return a margin, given as a fraction (0.01: one point), in the unit of a metric.

    For shares, correlations and R² it is the fraction itself. A metric without a highest value has
    no such scale: there it is this fraction of `level`, the trivial predictor's value.
    """
    return margin if metric.bounds[1] is not None or not level else margin * abs(level)


def margin_text(margin: float, metric: Metric) -> str:
    """Format a margin in a metric's unit, rounded up: '0.9 points', '0.010'."""
    if metric.is_share:
        return points(margin)
    step = 10.0**-metric.unit.decimals
    return metric.plain(math.ceil(margin / step - ROUNDING) * step)
