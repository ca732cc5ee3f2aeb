"""How much worse a metric may get: `accuracy:1pp`, `train_seconds:10%`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.errors import OptionError, unknown
from peft_methods.metrics import METRICS

DEFAULTS = (
    "peak_memory_bytes:5%",
    "train_seconds:10%",
)  # beside what the recipe selects by, which may lose a point
ROUNDING = 1e-9  # 0.90 - 0.89 is a little more than 0.01


@dataclass(frozen=True)
class Tolerance:
    """The most by which a metric may be worse than its baseline: `amount` 0.01 is one point, or one per cent where `relative`."""

    metric: str
    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.metric}:{self.said(self.amount)}"

    def said(self, amount: float) -> str:
        """An amount in this tolerance's terms."""
        return f"{100 * amount:.4g}{'%' if self.relative else 'pp'}"

    def worse(self, before: float, now: float) -> float:
        """How much worse `now` is than `before`; below 0 where it is better."""
        change = (now - before) * (1 if METRICS[self.metric].better == "lower" else -1)
        if not self.relative or change == 0:
            return change
        return change / abs(before) if before else math.copysign(math.inf, change)

    def is_exceeded(self, worse: float) -> bool:
        """Whether that is more than is tolerated."""
        return worse > self.amount + ROUNDING


def default_tolerances(select_by: str) -> tuple[Tolerance, ...]:
    """One point of what the recipe selects by, 5 % of memory, 10 % of time."""
    return tuple(parse_tolerance(text) for text in (f"{select_by}:1pp", *DEFAULTS))


def parse_tolerances(texts: Sequence[str]) -> tuple[Tolerance, ...]:
    """Every `METRIC:TOLERANCE` of a repeatable option, commas allowed. Raises `OptionError`."""
    found = tuple(parse_tolerance(part) for text in texts for part in text.split(","))
    names = [tolerance.metric for tolerance in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"--peft-fail names {twice} twice; give it one tolerance.")
    return found


def parse_tolerance(text: str) -> Tolerance:
    """'accuracy:1pp' -> one point; 'train_seconds:10%' -> ten per cent. Raises `OptionError`."""
    metric, _, amount = (piece.strip() for piece in text.partition(":"))
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(pp|%)", amount, re.ASCII)
    if metric not in METRICS and metric:
        judged = [name for name, one in METRICS.items() if one.better is not None]
        raise OptionError(f"--peft-fail {text!r}: {unknown('metric', metric, judged)}")
    if match is None or not metric:
        raise OptionError(
            f"--peft-fail {text!r} should read METRIC:TOLERANCE, for example accuracy:1pp (points) or train_seconds:10% (of the baseline)."
        )
    if METRICS[metric].better is None:
        raise OptionError(
            f"--peft-fail {text!r}: neither more nor less of {metric} is better, so it cannot get worse."
        )
    if match[2] == "pp" and not METRICS[metric].is_share:
        raise OptionError(
            f"--peft-fail {text!r}: points are for shares such as accuracy; write {metric}:{match[1]}% (of the baseline)."
        )
    return Tolerance(metric, float(match[1]) / 100, match[2] == "%")
