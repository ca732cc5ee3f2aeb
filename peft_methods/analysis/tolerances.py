"""Tolerances of the regression check: `accuracy:1pp`, `train_seconds:10%`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.profiling.metrics import METRICS
from peft_methods.utils.errors import OptionError, unknown

DEFAULTS = (
    "peak_memory_bytes:5%",
    "train_seconds:10%",
)  # added to one point of the recipe's selection metric
ROUNDING = 1e-9  # in floating point, 0.90 - 0.89 is slightly more than 0.01


@dataclass(frozen=True)
class Tolerance:
    """Maximum by which a metric may be worse than its baseline.

    `amount` 0.01 is one point or, if `relative`, one per cent of the baseline.
    """

    metric: str
    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.metric}:{self.formatted(self.amount)}"

    def formatted(self, amount: float) -> str:
        """Format an amount in this tolerance's unit: '1pp' or '10%'."""
        return f"{100 * amount:.4g}{'%' if self.relative else 'pp'}"

    def worse(self, before: float, now: float) -> float:
        """Return by how much `now` is worse than `before`; negative if it is better."""
        change = (now - before) * -METRICS[self.metric].sign()
        if not self.relative or change == 0:
            return change
        return change / abs(before) if before else math.copysign(math.inf, change)

    def is_exceeded(self, worse: float) -> bool:
        """Whether a metric that is worse by this amount exceeds the tolerance."""
        return worse > self.amount + ROUNDING


def default_tolerances(select_by: str) -> tuple[Tolerance, ...]:
    """Return the defaults: one point of the selection metric, 5 % of memory, 10 % of time.

    A selection metric that is no share may be worse by 1 %.
    """
    quality = f"{select_by}:{'1pp' if METRICS[select_by].is_share else '1%'}"
    return tuple(parse_tolerance(text) for text in (quality, *DEFAULTS))


def parse_tolerances(texts: Sequence[str]) -> tuple[Tolerance, ...]:
    """Parse texts of one or more comma-separated `METRIC:TOLERANCE`. Raises `OptionError`."""
    found = tuple(parse_tolerance(part) for text in texts for part in text.split(","))
    names = [tolerance.metric for tolerance in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"{twice} has more than one tolerance; give only one.", setting="fail")
    return found


def parse_tolerance(text: str) -> Tolerance:
    """Parse 'accuracy:1pp' (one point) or 'train_seconds:10%'. Raises `OptionError`."""
    metric, _, amount = (piece.strip() for piece in text.partition(":"))
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(pp|%)", amount, re.ASCII)
    if metric not in METRICS and metric:
        allowed = [name for name, one in METRICS.items() if one.higher_is_better is not None]
        raise OptionError(
            f"tolerance {text!r}: {unknown('metric', metric, allowed)}", setting="fail"
        )
    if match is None or not metric:
        raise OptionError(
            f"tolerance {text!r} must have the form METRIC:TOLERANCE, for example accuracy:1pp "
            "(points) or train_seconds:10% (of the baseline).",
            setting="fail",
        )
    if METRICS[metric].higher_is_better is None:
        raise OptionError(
            f"tolerance {text!r}: neither higher nor lower {metric} is better, so it cannot "
            "get worse. Choose another metric.",
            setting="fail",
        )
    if match[2] == "pp" and not METRICS[metric].is_share:
        raise OptionError(
            f"tolerance {text!r}: points (pp) are only for shares such as accuracy; "
            f"write {metric}:{match[1]}% (of the baseline).",
            setting="fail",
        )
    return Tolerance(metric, float(match[1]) / 100, match[2] == "%")
