"""The `Metric` type, and how values of each unit are formatted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


def percent(value: float) -> str:
    """Format a share: '86.4 %'."""
    return f"{100 * value:.1f} %"


def count(value: float) -> str:
    """Format a count: '1,234'."""
    return f"{value:,.0f}"


def in_seconds(value: float) -> str:
    """Format seconds: '12.6 s', '0.27 s'."""
    return f"{value:.{seconds_decimals(value)}f} s"


def seconds_decimals(seconds: float) -> int:
    """Return the number of decimals: one, or two below one second."""
    return 2 if 0 < seconds < 1 else 1


def rate(value: float) -> str:
    """Format a rate per second: '1,234.5/s'."""
    return f"{value:,.1f}/s"


def mebibytes(value: float) -> str:
    """Format bytes: '1,234.5 MiB'."""
    return f"{value / 2**20:,.1f} MiB"


def milliseconds(value: float) -> str:
    """Format seconds: '12.3 ms'."""
    return f"{1000 * value:,.1f} ms"


def joules(value: float) -> str:
    """Format an energy: '1,234 J'."""
    return f"{value:,.0f} J"


def _number(written: str) -> str:
    found = re.match(r"-?(?:[\d.,]+|nan|inf)", written)
    assert found is not None, "every formatted metric starts with a number"
    return found[0]


@dataclass(frozen=True)
class Metric:
    """One metric of a record. Its name ends in its unit; `better` None: no direction is better."""

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    format: Callable[[float], str]

    def spread(self, deviation: float, mean: float) -> str:
        """Format a standard deviation with the decimals of its mean and without the unit."""
        return (
            f"{deviation:.{seconds_decimals(mean)}f}"
            if self.format is in_seconds
            else _number(self.format(deviation))
        )

    def with_spread(self, mean: float, deviation: float) -> str:
        """Format mean and standard deviation: '34.2 ± 0.9 s'."""
        written = self.format(mean)
        number = _number(written)
        return f"{number} ± {self.spread(deviation, mean)}{written.removeprefix(number)}"

    @property
    def is_share(self) -> bool:
        """Whether values are in 0..1, so that differences are in points."""
        return self.format is percent

    @property
    def is_count(self) -> bool:
        """Whether values are counts, which do not depend on the seed."""
        return self.format is count

    @property
    def is_device_dependent(self) -> bool:
        """Whether values depend on the device: time, memory and energy do.

        Quality, counts and the size of saved weights do not.
        """
        ends = ("_seconds", "_bytes", "_per_second", "_joules", "_utilization")
        return self.name.endswith(ends) and self.name != "checkpoint_bytes"
