"""Metrics and their units: all that formatting, ranking and regression checks know of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peft_methods.utils.errors import OptionError, unknown


@dataclass(frozen=True)
class Unit:
    """The unit of a metric's raw values, and how they are written.

    `suffix` follows a value times `factor` with `decimals` decimals. `decimals_below_one` applies
    to written values between 0 and 1, `separator` divides thousands. `size` is the raw value that
    equals 1 of the unit `axis` on the axis of a chart.
    """

    name: str
    suffix: str = ""
    factor: float = 1.0
    decimals: int = 1
    decimals_below_one: int | None = None
    separator: str = ","
    axis: str = ""
    size: float = 1.0

    def decimals_of(self, value: float) -> int:
        """Return the number of decimals with which a value is written."""
        few = self.decimals_below_one is None or not 0 < value * self.factor < 1
        return self.decimals if few else self.decimals_below_one or 0

    def number(self, value: float, decimals: int, sign: str = "") -> str:
        """Format a value without its unit; with `sign` "+", positive values have a sign, too."""
        return f"{value * self.factor:{sign}{self.separator}.{decimals}f}"

    def format(self, value: float) -> str:
        """Format a value with its unit: '94.2 %', '2,048.0 MiB'."""
        return f"{self.number(value, self.decimals_of(value))}{self.suffix}"


SHARE = Unit("share", " %", 100, separator="", axis="%", size=0.01)
NUMBER = Unit("number", decimals=3)  # correlations, errors in the labels' own unit
COUNT = Unit("count", decimals=0)
SECONDS = Unit("seconds", " s", decimals_below_one=2, separator="", axis="s")
SHORT_SECONDS = Unit("seconds", " ms", 1000, axis="s")  # in ms, since they are far below one second
PER_SECOND = Unit("per_second", "/s")
BYTES = Unit("bytes", " MiB", 2.0**-20, axis="MiB", size=2.0**20)
JOULES = Unit("joules", " J", decimals=0)
NATS = Unit("nats", decimals=3)


def in_seconds(value: float) -> str:
    """Format seconds: '12.6 s', '0.27 s'."""
    return SECONDS.format(value)


def seconds_decimals(seconds: float) -> int:
    """Return the number of decimals: one, or two below one second."""
    return SECONDS.decimals_of(seconds)


@dataclass(frozen=True)
class Metric:
    """One metric of a record.

    `higher_is_better` is None if neither direction is better. `device_dependent` values, such as
    times, are not compared between devices. `bounds` are the lowest and highest possible value;
    None: there is none. `label` is the title within a sentence, without it the title in lower case.
    Values `of_tokens` are not compared between models that divide texts differently.
    """

    name: str
    title: str
    unit: Unit
    higher_is_better: bool | None
    device_dependent: bool = False
    bounds: tuple[float | None, float | None] = (0.0, None)
    label: str = ""
    of_tokens: bool = False

    @property
    def in_text(self) -> str:
        """The title within a sentence."""
        return self.label or self.title.lower()

    @property
    def is_share(self) -> bool:
        """Whether values are shares, so that differences are in points."""
        return self.unit == SHARE

    @property
    def is_count(self) -> bool:
        """Whether values are counts, which do not depend on the seed."""
        return self.unit == COUNT

    @property
    def points(self) -> str:
        """The unit of a difference: "points" for shares, else none."""
        return "points" if self.is_share else ""

    def plain(self, value: float, sign: str = "") -> str:
        """Format a value or a difference without its unit: '94.2', '+0.013'."""
        return self.unit.number(value, self.unit.decimals, sign)

    def gap(self, value: float) -> str:
        """Format a difference with its unit: '1.3 points', '0.013'."""
        return f"{self.plain(value)} {self.points}".rstrip()

    def range_text(self, ends: tuple[float, float], sign: str = "") -> str:
        """Format an interval without its unit: '93.1 to 95.0'."""
        return " to ".join(self.plain(end, sign) for end in ends)

    def on_axis(self, value: float) -> float:
        """Return a value in the unit of a chart's axis."""
        return value / self.unit.size

    def clipped(self, ends: tuple[float, float]) -> tuple[float, float]:
        """Return an interval without what lies beyond the metric's bounds."""
        least, most = self.bounds
        low, high = ends
        return (
            low if least is None else max(low, least),
            high if most is None else min(high, most),
        )

    def clipped_difference(self, ends: tuple[float, float]) -> tuple[float, float]:
        """Return an interval of a difference without what two values cannot differ by."""
        least, most = self.bounds
        if least is None or most is None:
            return ends
        return max(ends[0], least - most), min(ends[1], most - least)

    def is_possible(self, value: float) -> bool:
        """Whether a value is within the metric's bounds. False for nan."""
        low, high = self.bounds
        if math.isnan(value):
            return False
        return (low is None or value >= low) and (high is None or value <= high)

    def sign(self) -> int:
        """1 if higher values are better, else -1."""
        return 1 if self.higher_is_better else -1

    def format(self, value: float) -> str:
        """Format a value with its unit."""
        return self.unit.format(value)

    def spread(self, deviation: float, mean: float) -> str:
        """Format a standard deviation with the decimals of its mean and without the unit."""
        return self.unit.number(deviation, self.unit.decimals_of(mean))

    def with_spread(self, mean: float, deviation: float) -> str:
        """Format mean and standard deviation: '34.2 ± 0.9 s'."""
        number = self.unit.number(mean, self.unit.decimals_of(mean))
        return f"{number} ± {self.spread(deviation, mean)}{self.unit.suffix}"


def quality(name: str, title: str, label: str = "") -> Metric:
    """Return a metric of predictions: a share between 0 and 1, the higher the better."""
    return Metric(name, title, SHARE, higher_is_better=True, bounds=(0.0, 1.0), label=label)


def check_metric(
    name: str, known: tuple[Metric, ...], task: str, setting: str = "data.select_by"
) -> None:
    """Raise `OptionError` if the metric of a setting is not one of those known."""
    names = [metric.name for metric in known]
    if name not in names:
        raise OptionError(
            f"{setting}: {unknown(f'metric of {task}', name, names)}", setting=setting
        )
